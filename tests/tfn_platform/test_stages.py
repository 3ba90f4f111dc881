"""Stages: keys that change with what matters, plans with reasons, nothing made twice."""

from pathlib import Path
from typing import Any

import pytest

from tfn_platform.stages import Stage, plan, remember, run_stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES

A, B = Stage("a", {}), Stage("b", {"x": 1})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def make_nothing(folder: StageFolder) -> dict[str, Any]:
    return {}


def test_equal_stages_have_equal_keys() -> None:
    first = Stage("s", {"a": 1, "b": {"c": (1, 2)}}, (A, B), version=2)
    second = Stage("s", {"b": {"c": [1, 2]}, "a": 1}, (Stage("a", {}), Stage("b", {"x": 1})), 2)
    assert first.key == second.key


def test_the_key_changes_with_name_settings_version_and_inputs() -> None:
    stages = [
        Stage("s", {"a": 1}, (A, B)),
        Stage("t", {"a": 1}, (A, B)),
        Stage("s", {"a": 2}, (A, B)),
        Stage("s", {"a": 1, "b": None}, (A, B)),
        Stage("s", {"a": 1}, (A, B), version=2),
        Stage("s", {"a": 1}, (A,)),
        Stage("s", {"a": 1}, (B, A)),
        Stage("s", {"a": 1}, (A, Stage("b", {"x": 2}))),
        Stage("s", {"a": 1}, (A, Stage("b", {"x": 1}, version=2))),
        Stage("s", {"a": 1}, (Stage("a", {}, (B,)), B)),
    ]
    assert len({stage.key for stage in stages}) == len(stages)


def test_a_contract_names_the_stage_and_its_inputs() -> None:
    stage = Stage("s", {}, (A, B))
    contract = stage.contract(FEATURES)
    assert (contract.table, contract.stage_key) == ("FEATURES", stage.key)
    assert contract.input_keys == (A.key, B.key)


def test_a_stage_is_made_once_and_committed_with_its_figures(store: Store) -> None:
    stage = Stage("s", {"a": 1}, (A,), version=3)
    made: list[StageFolder] = []

    def make(folder: StageFolder) -> dict[str, int]:
        assert not folder.is_done
        made.append(folder)
        return {"videos": 5}

    assert run_stage(stage, store, make)
    assert not run_stage(Stage("s", {"a": 1}, (A,), version=3), store, make)
    assert made == [stage.folder(store)]
    done = stage.folder(store).read_done()
    assert done["figures"] == {"videos": 5}
    assert (done["stage"], done["key"], done["version"]) == ("s", stage.key, 3)
    assert (done["settings"], done["inputs"]) == ({"a": 1}, {"a": A.key})


def test_a_stage_that_raises_is_not_committed_and_runs_again(store: Store) -> None:
    def fail(folder: StageFolder) -> dict[str, Any]:
        folder.store.write_bytes(folder.file("half"), b"")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(A, store, fail)
    assert not A.folder(store).is_done
    assert run_stage(A, store, make_nothing)


def reason(stage: Stage, store: Store) -> str:
    (planned,) = plan([stage], store, pipeline="p")
    assert planned.stage is stage
    assert planned.is_done == (planned.reason == "already made")
    return planned.reason


def test_plan_before_anything_and_after_all(store: Store) -> None:
    assert reason(B, store) == "never made"
    remember([B], store, pipeline="p")
    assert reason(B, store) == "not finished"
    run_stage(B, store, make_nothing)
    assert reason(B, store) == "already made"
    assert reason(A, store) == "never made"
    assert [p.reason for p in plan([A, B], store, pipeline="q")] == ["never made", "already made"]


OLD = Stage("s", {"a": {"b": 1, "c": "x"}, "scales": (1, 2)}, (A, B))
SETTINGS = OLD.settings


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (
            Stage("s", {**SETTINGS, "a": {"b": 2, "c": "x"}}, (A, B)),
            "settings changed a.b: 1 → 2",
        ),
        (
            Stage("s", {"a": {"b": 1, "d": 0}, "scales": (1, 3)}, (A, B)),
            "settings changed a.c: x → (nothing), a.d: (nothing) → 0, scales: [1, 2] → [1, 3]",
        ),
        (
            Stage("s", {**SETTINGS, "new": None}, (A, B)),
            "settings changed new: (nothing) → None",
        ),
        (Stage("s", SETTINGS, (A, B), version=2), "its code changed (version 1 → 2)"),
        (Stage("s", SETTINGS, (A, Stage("b", {"x": 2}))), "new input: b"),
        (Stage("s", SETTINGS, (A, B, Stage("c", {}))), "new input: c"),
        (Stage("s", SETTINGS, (A,)), "input gone: b"),
        (Stage("s", SETTINGS, (B, A)), "its order of inputs changed"),
        (
            Stage("s", {**SETTINGS, "scales": ()}, (Stage("c", {}),), version=5),
            "its code changed (version 1 → 5); settings changed scales: [1, 2] → []; "
            "new input: c; input gone: a, b",
        ),
    ],
)
def test_the_plan_says_what_changed(store: Store, stage: Stage, expected: str) -> None:
    """A tuple, read back as a list, and a new null were reported wrongly."""
    remember([OLD], store, pipeline="p")
    assert reason(stage, store) == expected
