"""Rows come in no order: the parts must not depend on it."""

import itertools
from typing import Any

import numpy as np
import pytest

from tests.tfn_jobs.small_pipeline import CONTRACT, EXTRACT, FEATURE_DIM
from tfn_jobs.feature_parts import FeatureParts
from tfn_platform.feature_index import list_matrix
from tfn_platform.parquet import read_parts
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES, QUARANTINE
from tfn_platform.video import SamplingGrid

GRID = SamplingGrid(15, 1, frames_per_clip=8, short_side=32)  # type: ignore[arg-type]


def chunk(video_id: str, first_clip: int, num_clips: int) -> dict[str, Any]:
    values = np.arange(num_clips * FEATURE_DIM, dtype=np.float32) + 100 * first_clip
    place = {"first_clip": first_clip, "num_clips": num_clips, "is_end": False}
    return {
        "video_id": video_id,
        "uri": f"/{video_id}",
        "part": 0,
        "features": values.tobytes(),
        **place,
    }


def end(video_id: str, *, num_clips: int = 0, reason: str = "") -> dict[str, Any]:
    place = {"first_clip": 0, "num_clips": num_clips, "is_end": True, "features": b""}
    why = {"reason": reason, "detail": "why" if reason else ""}
    return {"video_id": video_id, "uri": f"/{video_id}", "part": 0, **place, **why}


ROWS = [
    chunk("good", 0, 2),
    chunk("good", 2, 1),
    end("good", num_clips=3),
    chunk("bad", 0, 2),
    end("bad", reason="truncated"),
]


def gather(store: Store) -> FeatureParts:
    folder = EXTRACT.folder(store)
    return FeatureParts(EXTRACT, folder, grid=GRID, contract=CONTRACT, part_sizes={0: 2})


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(ROWS))))[::7])
def test_any_order_gives_the_same_part(store: Store, order: tuple[int, ...]) -> None:
    """A chunk of a damaged video that came after its end was counted as another video."""
    gathered, folder = gather(store), EXTRACT.folder(store)
    finished = [gathered.add(ROWS[number]) for number in order]
    assert sum(finished) == 2
    features, contract = read_parts(folder, FEATURES)
    assert features["video_id"].to_pylist() == ["good"] * 3
    assert features["clip_index"].to_pylist() == [0, 1, 2]
    assert features["center_seconds"].to_pylist() == [0.5, 1.5, 2.5]
    expected = [[0, 1, 2], [3, 4, 5], [200, 201, 202]]
    np.testing.assert_array_equal(list_matrix(features["feature"]), expected)
    assert contract.features == CONTRACT
    (row,) = read_parts(folder, QUARANTINE)[0].to_pylist()
    assert (row["video_id"], row["reason"], row["detail"]) == ("bad", "truncated", "why")


def test_nothing_is_written_before_the_part_is_whole(store: Store) -> None:
    gathered, folder = gather(store), EXTRACT.folder(store)
    for row in ROWS[:4]:
        gathered.add(row)
    assert store.list_files(folder.table("features")) == []


def test_a_part_of_damaged_videos_only(store: Store) -> None:
    gathered, folder = gather(store), EXTRACT.folder(store)
    for name in ("one", "two"):
        gathered.add(end(name, reason="empty_file"))
    assert read_parts(folder, FEATURES)[0].num_rows == 0
    assert read_parts(folder, QUARANTINE)[0]["video_id"].to_pylist() == ["one", "two"]
