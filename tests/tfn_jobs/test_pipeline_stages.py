"""What runs again when a setting changes: exactly what depends on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tfn_jobs.conftest import MakeSpec
from tfn_jobs.data_location import AnnotationFile, DataLocation
from tfn_jobs.data_specs import VideosDataSpec
from tfn_jobs.pipeline_spec import STEPS, PipelineSpec
from tfn_jobs.pipeline_stages import PipelineStages, pipeline_stages
from tfn_platform.spec import parse_spec

MakeUnannotated = Callable[..., tuple[PipelineSpec, DataLocation]]
MEMBERS = ["classifier/mean", "classifier/other", "classifier/untrained"]
MEMBERS += ["bmn/d8", "bmn/d12", "bmn/untrained"]
REFINERS = ["refiner/base", "refiner/full"]
START = ["synthesize", "prepare", "finetune", "extract"]
REST = ["propose", *REFINERS, "fuse", "evaluate", "report"]
ALL = [*START, *MEMBERS, *REST]


def keys_of(stages: PipelineStages) -> dict[str, str]:
    return {stage.name: stage.key for stage in stages.until("report")}


def rerun(before: PipelineSpec, after: PipelineSpec) -> list[str]:
    old, new = keys_of(pipeline_stages(before, None)), keys_of(pipeline_stages(after, None))
    return [name for name, key in new.items() if old.get(name) != key]


def test_stages_stand_in_their_order(make_spec: MakeSpec) -> None:
    assert list(keys_of(pipeline_stages(make_spec(), None))) == ALL


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"resources": {"model_actors": 3, "member_gpus": 0.5, "finetune_gpus": 1}}, []),
    ({"tracking": {"uri": "http://127.0.0.1:1", "experiment": "other"}}, []),
    # The page says which pipeline it reports on.
    ({"name": "renamed"}, ["report"]),
    ({"until": "propose"}, []),
    ({"evaluation": {"timelines": 2}}, ["report"]),
    ({"bmns": [{"name": "d8", "num_bins": 8}, {"name": "d12", "num_bins": 12, "base_channels": 8}]},
     ["bmn/d12", *REST]),
    ({"classifiers": [{"name": "mean"}, {"name": "other", "hidden_channels": 8}]},
     ["classifier/other", "fuse", "evaluate", "report"]),
    ({"classifiers": [{"name": "mean"}, {"name": "renamed"}]},
     ["classifier/renamed", "fuse", "evaluate", "report"]),
    ({"refiners": [{"name": "base"}, {"name": "full"}]},
     ["refiner/full", "fuse", "evaluate", "report"]),
    ({"fusion": {"num_folds": 2, "num_bins": 8}}, REST),
    ({"evaluation": {"untrained_baseline": False}}, ["evaluate", "report"]),
    ({"backbone": {"architecture": "slowfast_tiny", "batch_clips": 4}},
     ["extract", *MEMBERS, *REST]),
    ({"clips": {"short_side": 32, "frames_per_clip": 8, "crop": "center", "stride_seconds": "1/4"}},
     ["extract", *MEMBERS, *REST]),
    ({"clips": {"short_side": 40, "frames_per_clip": 8, "crop": "center"}}, ALL[2:]),
    ({"backbone": {"architecture": "slowfast_tiny", "batch_clips": 2, "std": 0.3}}, ALL[2:]),
    ({"seed": 1}, ALL[2:]),
    ({"training_subset": "train"}, ALL[1:]),
    ({"dataset": {"format": "synthetic", "num_training": 7, "num_validation": 6}}, ALL),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "expected"), CHANGES, ids=lambda value: str(value)[:40])
def test_what_a_change_makes_run_again(
    make_spec: MakeSpec, changed: dict[str, Any], expected: list[str]
) -> None:
    assert rerun(make_spec(), make_spec(**changed)) == expected


def test_changing_the_first_bmn_changes_its_untrained_twin(make_spec: MakeSpec) -> None:
    first = {"name": "d8", "num_bins": 8, "base_channels": 8}
    changed = make_spec(bmns=[first, {"name": "d12", "num_bins": 12}])
    assert rerun(make_spec(), changed) == ["bmn/d8", "bmn/untrained", *REST]


def test_baselines_are_the_first_members_without_training(make_spec: MakeSpec) -> None:
    stages = pipeline_stages(make_spec(), None)
    baselines = [member for member in stages.members if member.is_baseline]
    assert [member.stage.name for member in baselines] == ["classifier/untrained", "bmn/untrained"]
    for baseline in baselines:
        assert baseline.spec.training.num_epochs == 0
    assert baselines[1].spec.model_copy(update={"name": "d8"}).model_dump(
        exclude={"training"}
    ) == make_spec().bmns[0].model_dump(exclude={"training"})
    # They are measured, and no part of the ensemble.
    assert baselines[0].stage not in stages.fuse.inputs
    assert baselines[1].stage not in stages.propose.inputs
    assert all(baseline.stage in stages.evaluate.inputs for baseline in baselines)


@pytest.mark.parametrize("step", STEPS)
def test_until_ends_after_a_step(make_spec: MakeSpec, step: str) -> None:
    stages = pipeline_stages(make_spec(), None)
    names = [stage.name for stage in stages.until(step)]  # type: ignore[arg-type]
    last = {"members": "bmn/untrained", "refiners": "refiner/full"}.get(step, step)
    assert names == ALL[: ALL.index(last) + 1]


def test_a_stage_knows_its_inputs_by_their_keys(make_spec: MakeSpec) -> None:
    made: set[str] = set()
    for stage in pipeline_stages(make_spec(), None).until("report"):
        assert {entry.name for entry in stage.inputs} <= made
        made.add(stage.name)


def test_data_from_outside_is_known_by_its_content(make_spec: MakeSpec, tmp_path: Path) -> None:
    annotations = tmp_path / "gt.json"
    annotations.write_text("{}")
    (tmp_path / "one.mp4").write_bytes(b"1")
    dataset = {"format": "activitynet", "annotations": str(annotations), "videos": str(tmp_path)}
    spec = make_spec(dataset=dataset)
    place = (str(tmp_path),), AnnotationFile("activitynet", str(annotations))
    before = keys_of(pipeline_stages(spec, DataLocation(*place)))
    assert list(before) == ALL[1:]
    assert keys_of(pipeline_stages(spec, DataLocation(*place))) == before
    (tmp_path / "two.mp4").write_bytes(b"2")
    assert not set(keys_of(pipeline_stages(spec, DataLocation(*place))).values()) & set(
        before.values()
    )


@pytest.fixture
def unannotated(spec_data: dict[str, Any], tmp_path: Path) -> MakeUnannotated:
    """Makes the spec of an extraction from two videos, with some sections replaced."""
    (tmp_path / "videos").mkdir()
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / "videos" / name).write_bytes(b"1")
    (tmp_path / "weights.pt").write_bytes(b"w")
    backbone = {**spec_data["backbone"], "checkpoint": str(tmp_path / "weights.pt")}
    dataset = {"format": "videos", "videos": str(tmp_path / "videos")}

    def make(changed: dict[str, Any], **sections: Any) -> tuple[PipelineSpec, DataLocation]:
        data = {"name": "x", "until": "extract", "clips": spec_data["clips"]}
        data |= {"backbone": {**backbone, "finetune": None}, "dataset": {**dataset, **changed}}
        spec = parse_spec(PipelineSpec, {**data, **sections}, source="x.yaml")
        assert isinstance(spec.dataset, VideosDataSpec)
        return spec, DataLocation(spec.dataset.videos)

    return make


def extraction_keys(made: tuple[PipelineSpec, DataLocation]) -> dict[str, str]:
    return {stage.name: stage.key for stage in pipeline_stages(*made).until("extract")}


def test_stages_of_videos_without_an_annotation(unannotated: MakeUnannotated) -> None:
    before = extraction_keys(unannotated({}))
    assert list(before) == ["prepare", "finetune", "extract"]
    same = [
        # What may be unusable changes no result, nor do names of what there is not.
        unannotated({"max_quarantined_share": 0.5}),
        unannotated({}, training_subset="train", evaluation={"subset": "test"}),
        unannotated({}, extraction={"stall_seconds": 3, "max_attempts": 5}),
    ]
    for made in same:
        assert extraction_keys(made) == before
    for changed in ({"duration_tolerance": None}, {"duration_tolerance": 0.5}):
        after = extraction_keys(unannotated(changed))
        assert [name for name in after if after[name] != before[name]] == ["prepare", "extract"]
    after = extraction_keys(unannotated({}, extraction={"damage": "salvage"}))
    assert [name for name in after if after[name] != before[name]] == ["prepare", "extract"]


def test_a_checkpoint_as_it_is_does_not_depend_on_the_videos(
    unannotated: MakeUnannotated, tmp_path: Path
) -> None:
    before = extraction_keys(unannotated({}))
    (tmp_path / "videos" / "three.mp4").write_bytes(b"3")
    after = extraction_keys(unannotated({}))
    assert [name for name in after if after[name] != before[name]] == ["prepare", "extract"]
    (tmp_path / "weights.pt").write_bytes(b"other")
    other = extraction_keys(unannotated({}))
    assert [name for name in other if other[name] != after[name]] == ["finetune", "extract"]


def test_a_list_of_files_is_known_by_what_it_lists(
    unannotated: MakeUnannotated, tmp_path: Path
) -> None:
    files = [str(tmp_path / "videos" / name) for name in ("one.mp4", "two.mp4")]
    before = extraction_keys(unannotated({"videos": files}))
    assert extraction_keys(unannotated({"videos": files[::-1]})) == before
    assert extraction_keys(unannotated({"videos": files[:1]}))["prepare"] != before["prepare"]
    Path(files[0]).unlink()
    assert extraction_keys(unannotated({"videos": files}))["prepare"] != before["prepare"]
