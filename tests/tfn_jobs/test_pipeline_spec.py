"""Whatever a user may write wrongly is refused together, each with its place in the YAML."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfn_jobs.data_specs import AnnotatedDataSpec
from tfn_jobs.pipeline_spec import STEPS, PipelineSpec
from tfn_jobs.spec_fields import RUNS_ELSEWHERE
from tfn_platform.errors import SpecError
from tfn_platform.spec import load_spec, parse_spec

Change = Callable[[dict[str, Any]], object]


def problems_of(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(PipelineSpec, data, source="small.yaml")
    head, *lines = str(caught.value).splitlines()
    assert head == f"small.yaml: {len(lines)} problem{'s' if len(lines) > 1 else ''}"
    return [line.strip() for line in lines]


def set_in(*path: Any, value: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        *parents, last = path
        node: Any = data
        for key in parents:
            node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
        node[last] = value

    return change


BAD: list[tuple[Change, str]] = [
    (
        set_in("bmns", 0, "num_bin", value=8),
        "bmns[0].num_bin: unknown key; did you mean 'num_bins'?",
    ),
    (
        set_in("bmns", 1, "num_bins", value=0),
        "bmns[1].num_bins: input should be greater than or equal to 2, got 0",
    ),
    (
        set_in("clips", "short_side", value="big"),
        "clips.short_side: input should be a valid integer",
    ),
    (
        set_in("seed", value=False),
        "seed: must be a number, got False (what YAML reads yes and no as)",
    ),
    (
        set_in("clips", "frame_rate", value="15/0"),
        "clips.frame_rate: must be a number or a fraction such as 8/15, got '15/0'",
    ),
    (
        set_in("clips", "stride_seconds", value="fast"),
        "clips.stride_seconds: must be a number or a fraction",
    ),
    (
        set_in("clips", "stride_seconds", value=-0.5),
        "clips.stride_seconds: must be positive, got '-0.5'",
    ),
    (
        set_in("backbone", "architecture", value="i3d"),
        "backbone.architecture: no backbone 'i3d'; there are: i3d_inception, i3d_r50,",
    ),
    (
        set_in("backbone", "finetune", value=None),
        "backbone: needs a checkpoint, or a finetune section",
    ),
    (
        set_in("backbone", "checkpoint", value="no/such.pt"),
        "backbone.checkpoint: there is no file or folder 'no/such.pt'",
    ),
    (
        set_in("dataset", "num_training", value=0),
        "dataset.num_training: input should be greater than or equal to 1, got 0",
    ),
    (
        set_in("classifiers", 0, "training", value={"learning_rate": 0}),
        "classifiers[0].training.learning_rate: input should be greater than 0",
    ),
    (
        set_in("refiners", 0, "name", value="Not Good"),
        "refiners[0].name: string should match pattern",
    ),
    (
        set_in("backbone", "finetune", value={"random_crop": {"short_side_low": 32, "size": 300}}),
        "backbone.finetune.random_crop: a random crop needs 1 <= size <= short_side_low",
    ),
    (
        set_in("fusion", "map_weights", value="affine"),
        "fusion.map_weights: input should be 'simplex' or 'free', got 'affine'",
    ),
    (set_in("until", value="breakfast"), "until: input should be 'prepare', 'finetune'"),
]


@pytest.mark.parametrize(("change", "expected"), BAD, ids=[text.split(":")[0] for _, text in BAD])
def test_each_mistake_names_its_place(
    spec_data: dict[str, Any], change: Change, expected: str
) -> None:
    change(spec_data)
    (problem,) = problems_of(spec_data)
    assert problem.startswith(expected), problem


def test_all_mistakes_are_told_together(spec_data: dict[str, Any]) -> None:
    chosen = [0, 1, 2, 3, 6, 9, 10]
    for number in chosen:
        BAD[number][0](spec_data)
    problems = problems_of(spec_data)
    assert len(problems) == len(chosen)
    for number in chosen:
        assert any(problem.startswith(BAD[number][1]) for problem in problems), BAD[number][1]


CONTRADICTIONS: list[tuple[Change, str]] = [
    (set_in("bmns", 1, "name", value="d8"), "bmns[1].name: 'd8' is taken by bmns[0]"),
    (
        set_in("classifiers", 0, "name", value="untrained"),
        "classifiers[0].name: 'untrained' means the baseline",
    ),
    (set_in("refiners", value=[]), "refiners: needs at least one member, or `until: extract`"),
    (
        set_in("evaluation", "subset", value="training"),
        "evaluation.subset: 'training' is what is trained on",
    ),
    (
        set_in("fusion", "num_folds", value=7),
        "fusion.num_folds: must be at most the 6 validation videos, got 7",
    ),
    (
        set_in("dataset", "max_duration_seconds", value=5),
        "dataset: durations must be at least 2 seconds and min <= max, got 10.0..5.0",
    ),
]


def test_contradictions_are_told_together(spec_data: dict[str, Any]) -> None:
    for change, _ in CONTRADICTIONS:
        change(spec_data)
    text = "\n".join(problems_of(spec_data))
    for _, expected in CONTRADICTIONS:
        assert expected in text


@pytest.mark.parametrize("contradiction", CONTRADICTIONS, ids=lambda c: c[1].split(":")[0])
def test_each_contradiction_is_told(
    spec_data: dict[str, Any], contradiction: tuple[Change, str]
) -> None:
    change, expected = contradiction
    change(spec_data)
    (problem,) = problems_of(spec_data)
    assert expected in problem


@pytest.mark.parametrize("until", STEPS)
def test_members_are_needed_from_their_training_on(spec_data: dict[str, Any], until: str) -> None:
    for family in ("classifiers", "bmns", "refiners"):
        del spec_data[family]
    spec_data["until"] = until
    if until in ("prepare", "finetune", "extract"):
        assert parse_spec(PipelineSpec, spec_data, source="").until == until
    else:
        assert "classifiers: needs at least one member" in problems_of(spec_data)[0]


def test_missing_files_of_a_data_set(spec_data: dict[str, Any], tmp_path: Path) -> None:
    spec_data["dataset"] = {
        "format": "activitynet",
        "annotations": str(tmp_path / "gt.json"),
        "videos": str(tmp_path),
    }
    (problem,) = problems_of(spec_data)
    assert problem.startswith("dataset.annotations: there is no file or folder")
    (tmp_path / "gt.json").touch()
    dataset = parse_spec(PipelineSpec, spec_data, source="").dataset
    assert isinstance(dataset, AnnotatedDataSpec)


def test_unknown_format_of_a_data_set(spec_data: dict[str, Any]) -> None:
    spec_data["dataset"]["format"] = "kinetics"
    problem, *_ = problems_of(spec_data)
    assert problem.startswith("dataset.format: no annotation format 'kinetics'; there are:")
    assert "thumos14" in problem


def test_local_paths_become_absolute(
    spec_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gt.json").touch()
    spec_data["dataset"] = {"format": "hacs", "annotations": "gt.json", "videos": "s3://b/videos"}
    dataset = parse_spec(PipelineSpec, spec_data, source="").dataset
    assert isinstance(dataset, AnnotatedDataSpec)
    assert dataset.annotations == str(tmp_path / "gt.json")
    assert dataset.videos == ("s3://b/videos",)


@pytest.mark.parametrize(
    ("written", "exact"), [(15, "15"), (0.5, "1/2"), ("8/15", "8/15"), ("30000/1001", "30000/1001")]
)
def test_numbers_of_the_grid_are_exact(
    spec_data: dict[str, Any], written: object, exact: str
) -> None:
    spec_data["clips"] = {"frame_rate": written}
    assert parse_spec(PipelineSpec, spec_data, source="").clips.frame_rate == exact


def test_shipped_specs_load(repository: Path) -> None:
    paths = sorted((repository / "jobs").glob("*.yaml"))
    assert "demo.yaml" in [path.name for path in paths]
    for path in paths:
        if path.name == "import-features.yaml":
            continue  # the spec of another command, loaded by its own test
        assert load_spec(PipelineSpec, path, context={RUNS_ELSEWHERE: True}).name == path.stem
    demo = load_spec(PipelineSpec, repository / "jobs" / "demo.yaml")
    assert (len(demo.classifiers), len(demo.bmns), len(demo.refiners)) == (4, 3, 2)


def test_overrides_are_checked_like_the_yaml(repository: Path) -> None:
    demo = repository / "jobs" / "demo.yaml"
    spec = load_spec(PipelineSpec, demo, overrides=["bmns.d48.num_bins=24"])
    assert [bmn.num_bins for bmn in spec.bmns] == [32, 24, 32]
    with pytest.raises(SpecError, match=r"bmns\[1\]\.num_bins: .* got 0"):
        load_spec(PipelineSpec, demo, overrides=["bmns.d48.num_bins=0"])


def test_contradictions_are_told_next_to_wrong_fields(spec_data: dict[str, Any]) -> None:
    """A wrong field once hid that two members had one name, and that there were too many folds."""
    BAD[1][0](spec_data)
    for change, _ in CONTRADICTIONS:
        change(spec_data)
    text = "\n".join(problems_of(spec_data))
    for _, expected in [BAD[1], *CONTRADICTIONS]:
        assert expected in text
