"""Data sets are looked at, and refused where a spec cannot be run on them, before Ray starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tfn_jobs.conftest import MakeSpec
from tfn_jobs.data_location import AnnotationFile, DataLocation
from tfn_jobs.pipeline_data import check_data, data_location
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.errors import DataError
from tfn_platform.spec import parse_spec
from tfn_platform.stages import Stage
from tfn_platform.store import Store


def annotated(folder: Path, subsets: list[str]) -> dict[str, Any]:
    database = {f"v{number}": {"subset": subset} for number, subset in enumerate(subsets)}
    (folder / "gt.json").write_text(json.dumps({"database": database}))
    return {
        "format": "activitynet",
        "annotations": f"{folder}/gt.json",
        "videos": str(folder),
        "max_quarantined_share": 0.3,
        "duration_tolerance": 0.2,
    }


def test_annotated_videos(make_spec: MakeSpec, tmp_path: Path, store: Store) -> None:
    spec = make_spec(dataset=annotated(tmp_path, ["training", *["validation"] * 3]))
    place = data_location(spec, store, None)
    annotation = AnnotationFile("activitynet", f"{tmp_path}/gt.json")
    assert place == DataLocation((str(tmp_path),), annotation, 0.3, 0.2)
    check_data(spec, place)


def test_videos_alone(spec_data: dict[str, Any], tmp_path: Path, store: Store) -> None:
    dataset = {"format": "videos", "videos": str(tmp_path), "duration_tolerance": None}
    data = {**spec_data, "dataset": dataset, "until": "prepare"}
    spec = parse_spec(PipelineSpec, data, source="")
    place = data_location(spec, store, None)
    assert place == DataLocation((str(tmp_path),), None, 0.1, None)
    # There are no subsets to look for.
    check_data(spec, place)


def test_a_rendered_data_set_lies_where_its_stage_does(make_spec: MakeSpec, store: Store) -> None:
    dataset = {"format": "synthetic", "num_validation": 6, "damaged_share": 0.25}
    spec = make_spec(dataset=dataset)
    assert data_location(spec, store, None) is None
    stage = Stage("synthesize", {})
    uri = stage.folder(store).uri
    annotation = AnnotationFile("activitynet", f"{uri}/annotations.json")
    assert data_location(spec, store, stage) == DataLocation((f"{uri}/videos",), annotation, 0.3)


@pytest.mark.parametrize(
    ("subsets", "problem"),
    [
        (["validation"], "no video of subset 'training'; there are: validation"),
        (["training", "test"], "no video of subset 'validation'; there are: test, training"),
        (
            ["training", "validation", "validation"],
            "fusion.num_folds: must be at most the 2 videos of subset 'validation', got 3",
        ),
    ],
)
def test_an_annotation_that_does_not_do(
    make_spec: MakeSpec, tmp_path: Path, store: Store, subsets: list[str], problem: str
) -> None:
    spec = make_spec(dataset=annotated(tmp_path, subsets))
    place = data_location(spec, store, None)
    assert place is not None
    with pytest.raises(DataError, match=problem):
        check_data(spec, place)
