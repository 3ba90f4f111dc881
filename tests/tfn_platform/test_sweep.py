"""Members as Tune trials: in parallel, restarted where they were killed, failures named."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tfn_platform.checkpoint import load_torch, weights_hash
from tfn_platform.errors import ResourceError, StageError
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.sweep import Report, SweepMember, run_sweep
from tfn_platform.training import (
    EpochReport,
    LossReport,
    TrainingSettings,
    TrainingTask,
    set_determinism,
    train,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

NUM_EPOCHS = 3


@dataclass(frozen=True)
class MemberSettings:
    """What one member of the tests does.

    Attributes:
        seed: of its training.
        killed_once: a file; while it is not there, the worker dies after the second epoch.
        fails: raises always.
        num_epochs: how long it trains.
    """

    seed: int
    killed_once: str = ""
    fails: bool = False
    num_epochs: int = NUM_EPOCHS


def train_tiny(
    settings: MemberSettings, data: torch.Tensor, folder: StageFolder, report: Report
) -> Mapping[str, Any]:
    """Fit a line; die or fail as the settings say."""
    if settings.fails:
        raise RuntimeError("this member cannot be trained")
    set_determinism(seed=settings.seed, num_threads=1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
        return LossReport((model(batch) - batch.sum(1, keepdim=True)).square().mean())

    def on_epoch(epoch: EpochReport) -> None:
        if settings.killed_once and epoch.epoch == 1 and not Path(settings.killed_once).exists():
            Path(settings.killed_once).touch()
            os._exit(9)
        report(epoch)

    def batches(_: int = 0) -> Iterator[torch.Tensor]:
        yield from data.split(4)

    history = train(
        model,
        TrainingTask(batches, 2, batches, loss),
        settings=TrainingSettings(num_epochs=settings.num_epochs),
        seed=settings.seed,
        folder=folder,
        on_epoch=on_epoch,
    )
    return {"epochs": len(history), "process": os.getpid()}


def sweep(
    store: Store, members: Mapping[str, MemberSettings], *, num_cpus: float = 1
) -> list[tuple[str, EpochReport]]:
    """Train members by name; return what the driver was told."""
    told: list[tuple[str, EpochReport]] = []
    run_sweep(
        [
            SweepMember(Stage(name, {"seed": settings.seed}), settings, num_cpus, 0)
            for name, settings in members.items()
        ],
        name="members",
        store=store,
        shared=torch.arange(32.0).reshape(8, 4) / 32,
        train_member=train_tiny,
        on_epoch=lambda name, report: told.append((name, report)),
    )
    return told


def folder_of(store: Store, name: str, seed: int) -> StageFolder:
    return Stage(name, {"seed": seed}).folder(store)


def test_members_are_trained_committed_and_followed(tmp_path: Path) -> None:
    """The figures of an epoch had Tune's own `training_iteration` among them."""
    store = Store.open(str(tmp_path))
    members = {
        "bmn/a": MemberSettings(1),
        "bmn/b": MemberSettings(2),
        "bmn/untrained": MemberSettings(3, num_epochs=0),
    }
    told = sweep(store, members)
    folders = [folder_of(store, name, settings.seed) for name, settings in members.items()]
    assert [folder.read_done()["figures"]["epochs"] for folder in folders] == [3, 3, 0]
    weights = {weights_hash(load_torch(store, folder.weights)) for folder in folders}
    assert len(weights) == 3
    for folder, name in zip(folders[:2], members, strict=False):
        entries = store.read_json(folder.history)
        expected = [EpochReport(entry["epoch"], entry["metrics"]) for entry in entries]
        assert [report for member, report in told if member == name] == expected
    assert {name for name, _ in told} == {"bmn/a", "bmn/b"}


def test_a_member_does_not_depend_on_what_its_process_trained_before(tmp_path: Path) -> None:
    together, alone = Store.open(str(tmp_path / "together")), Store.open(str(tmp_path / "alone"))
    sweep(together, {"a": MemberSettings(1), "b": MemberSettings(2)}, num_cpus=4)
    sweep(alone, {"b": MemberSettings(2)}, num_cpus=4)
    first, second = folder_of(together, "a", 1), folder_of(together, "b", 2)
    processes = {folder.read_done()["figures"]["process"] for folder in (first, second)}
    assert len(processes) == 1
    weights = [
        weights_hash(load_torch(store, folder_of(store, "b", 2).weights))
        for store in (together, alone)
    ]
    assert weights[0] == weights[1]


def test_a_killed_worker_is_restarted_and_a_failing_member_is_named(tmp_path: Path) -> None:
    disturbed = Store.open(str(tmp_path / "disturbed"))
    marker = tmp_path / "killed"
    members = {
        "killed": MemberSettings(1, killed_once=str(marker)),
        "failing": MemberSettings(2, fails=True),
    }
    with pytest.raises(StageError) as caught:
        sweep(disturbed, members)
    assert str(caught.value).startswith("1 of 2 members failed: failing\n")
    assert "this member cannot be trained" in str(caught.value)
    assert marker.exists()
    assert not folder_of(disturbed, "failing", 2).is_done
    killed = folder_of(disturbed, "killed", 1)
    assert killed.is_done
    undisturbed = Store.open(str(tmp_path / "undisturbed"))
    sweep(undisturbed, {"killed": MemberSettings(1)})
    expected = folder_of(undisturbed, "killed", 1)
    assert weights_hash(load_torch(disturbed, killed.weights)) == weights_hash(
        load_torch(undisturbed, expected.weights)
    )
    assert disturbed.read_json(killed.history) == undisturbed.read_json(expected.history)


def test_what_no_machine_can_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="member big needs 64 CPU and 0 GPU on one machine"):
        sweep(Store.open(str(tmp_path)), {"big": MemberSettings(0)}, num_cpus=64)
    assert not (tmp_path / "tune").exists()
