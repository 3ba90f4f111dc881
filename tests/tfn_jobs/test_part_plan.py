"""Parts and shares: every video in one of them, none too large."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tfn_jobs.part_plan import (
    MAX_PART_BYTES,
    MAX_PART_VIDEOS,
    MAX_SHARE_VIDEOS,
    PartPlan,
    plan_parts,
    work_shares,
)

BYTES_PER_CLIP = 4608


def planned(durations: list[float]) -> PartPlan:
    names = [f"v{number:04d}" for number in range(len(durations))][::-1]
    columns = {"video_id": names, "uri": names, "duration_seconds": durations}
    return plan_parts(pa.table(columns), stride_seconds=0.5, bytes_per_clip=BYTES_PER_CLIP)


@given(
    st.lists(st.sampled_from([0.0, 1.0, 60.0, 3_600.0, 20_000.0, 1e9]), min_size=1, max_size=200)
)
def test_parts_hold_all_videos_in_order_and_are_not_too_large(durations: list[float]) -> None:
    plan = planned(durations)
    rows = plan.videos.to_pylist()
    assert [row["video_id"] for row in rows] == sorted(row["video_id"] for row in rows)
    parts = np.array([row["part"] for row in rows])
    assert parts[0] == 0 and set(np.diff(parts)) <= {0, 1}
    np.testing.assert_array_equal(plan.sizes, np.bincount(parts))
    seconds = np.array(durations[::-1])
    for part in range(parts[-1] + 1):
        clips = np.maximum(1, seconds[parts == part] / 0.5)
        assert len(clips) <= MAX_PART_VIDEOS
        assert len(clips) == 1 or clips.sum() * BYTES_PER_CLIP <= MAX_PART_BYTES
        assert plan.video_ids(part) == {row["video_id"] for row in rows if row["part"] == part}


def test_a_plan_of_sorted_videos_is_no_copy_of_them() -> None:
    """At half a million videos it took 40 MB more, from beginning to end."""
    names = pa.array([f"v{number:04d}" for number in range(1_000)])
    columns = {"video_id": names, "uri": names, "duration_seconds": pa.array([1.0] * 1_000)}
    plan = plan_parts(pa.table(columns), stride_seconds=0.5, bytes_per_clip=BYTES_PER_CLIP)
    for name in ("video_id", "uri"):
        planned_at = [buffer and buffer.address for buffer in plan.videos[name].chunk(0).buffers()]
        assert planned_at == [buffer and buffer.address for buffer in names.buffers()]


def test_no_videos_make_no_parts() -> None:
    plan = plan_parts(
        pa.table(
            {
                "video_id": pa.array([], pa.string()),
                "uri": pa.array([], pa.string()),
                "duration_seconds": pa.array([], pa.float64()),
            }
        ),
        stride_seconds=0.5,
        bytes_per_clip=1,
    )
    assert plan.videos.num_rows == len(plan.sizes) == 0
    assert work_shares(plan.videos, num_actors=3) == []


@given(num_videos=st.integers(0, 5_000), num_actors=st.integers(1, 600))
def test_shares_hold_all_videos_and_shrink(num_videos: int, num_actors: int) -> None:
    todo = pa.table({"video": np.arange(num_videos)})
    shares = work_shares(todo, num_actors=num_actors)
    lengths = [share.num_rows for share in shares]
    assert sum(lengths) == num_videos
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths, default=1) <= MAX_SHARE_VIDEOS
    assert lengths[:num_actors] == [] or sum(lengths[:num_actors]) <= max(4 * num_actors, 1024)
    if num_videos >= 8 * num_actors:
        assert lengths[-num_actors:] == [1] * num_actors
