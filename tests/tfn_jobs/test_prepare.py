"""Annotated videos and their files: what is found, and why the rest is of no use."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfn_jobs.data_location import DataLocation
from tfn_jobs.prepare import prepare
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.datasets.synthetic_damage import DAMAGE_REASONS, Damage, damage_video
from tfn_platform.errors import DataError, StageError
from tfn_platform.parquet import read_table
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tables import ANNOTATIONS, QUARANTINE, VIDEOS

PREPARE = Stage("prepare", {})
SUBSETS = ("training", "validation")
SMALL = SyntheticConfig(
    num_training=1,
    num_validation=0,
    min_duration_seconds=2,
    max_duration_seconds=2.5,
    min_segment_seconds=0.6,
    max_segment_seconds=0.8,
    min_short_side=32,
    max_short_side=32,
)
pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def video() -> bytes:
    return render_video(SMALL, 0).data


def write(folder: Path, files: Mapping[str, bytes], subsets: Mapping[str, str]) -> DataLocation:
    (folder / "videos").mkdir()
    for name, data in files.items():
        (folder / "videos" / name).write_bytes(data)
    database = {
        name: {"subset": subset, "annotations": [{"label": "jump", "segment": [0.5, 1.5]}]}
        for name, subset in subsets.items()
    }
    path = folder / "gt.json"
    path.write_text(json.dumps({"database": database}))
    return DataLocation("activitynet", str(path), str(folder / "videos"), 0.5)


def test_files_are_found_with_and_without_prefix(
    video: bytes, tmp_path: Path, store: Store
) -> None:
    files = {"one.mp4": video, "v_two.mp4": video + b"\0", "v_three.mp4": video, "three.mp4": video}
    subsets = {"one": "training", "two": "validation", "three": "training", "other": "testing"}
    location = write(tmp_path, files, subsets)
    folder = PREPARE.folder(store)
    assert prepare(location, PREPARE, folder, subsets=SUBSETS) == {"videos": 3, "quarantined": 0}
    PREPARE.commit(store, seconds=0)
    rows = {row["video_id"]: row for row in read_table(folder, VIDEOS)[0].to_pylist()}
    assert list(rows) == ["one", "three", "two"]
    assert rows["two"]["uri"] == f"{location.videos_uri}/v_two.mp4"
    assert rows["three"]["uri"] == f"{location.videos_uri}/three.mp4"
    assert rows["one"]["size_bytes"] == len(video)
    assert 1.9 < rows["one"]["duration_seconds"] < 2.6
    assert min(rows["one"]["width"], rows["one"]["height"]) == 32
    assert rows["one"]["fingerprint"] == rows["three"]["fingerprint"] != rows["two"]["fingerprint"]
    annotations, _ = read_table(folder, ANNOTATIONS)
    assert sorted(annotations["video_id"].to_pylist()) == ["one", "three", "two"]
    assert set(annotations["label"].to_pylist()) == {"jump"}


def test_unusable_files_are_quarantined_with_the_reason(
    video: bytes, tmp_path: Path, store: Store
) -> None:
    # A truncated file whose header is whole shows its damage when it is decoded.
    kinds = [kind for kind in Damage if kind is not Damage.TRUNCATED_FAST_START]
    rng = np.random.default_rng(0)
    files = {f"{kind}.mp4": damage_video(video, kind, rng=rng) for kind in kinds}
    names = [str(kind) for kind in kinds] + ["missing"]
    location = write(
        tmp_path, {**files, "good.mp4": video}, dict.fromkeys([*names, "good"], "training")
    )
    folder = PREPARE.folder(store)
    with pytest.raises(
        StageError, match=r"6 of 7 videos cannot be used, more than the share of 0\.5"
    ):
        prepare(location, PREPARE, folder, subsets=("training",))
    figures = prepare(
        replace(location, max_quarantined_share=6 / 7), PREPARE, folder, subsets=("training",)
    )
    assert figures == {"videos": 1, "quarantined": 6}
    PREPARE.commit(store, seconds=0)
    rows = read_table(folder, QUARANTINE)[0].to_pylist()
    reasons = {row["video_id"]: row["reason"] for row in rows}
    expected = {str(kind): str(DAMAGE_REASONS[kind]) for kind in kinds}
    assert reasons == {**expected, "missing": "missing_file"}
    assert {row["stage"] for row in rows} == {"prepare"}
    # Ground truth stays complete: what cannot be used counts as missed.
    assert read_table(folder, ANNOTATIONS)[0].num_rows == 7


def test_a_subset_without_videos_is_refused(video: bytes, tmp_path: Path, store: Store) -> None:
    location = write(tmp_path, {"one.mp4": video}, {"one": "training"})
    with pytest.raises(DataError, match=r"gt\.json: no video of subset 'validation'"):
        prepare(location, PREPARE, PREPARE.folder(store), subsets=SUBSETS)
