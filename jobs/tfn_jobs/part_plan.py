"""Which videos share a part of FEATURES: decided beforehand, so that no accident changes it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MAX_PART_VIDEOS = 64
MAX_PART_BYTES = 256 << 20
MAX_SHARE_VIDEOS = 64
MIN_SHARE_VIDEOS = 4
SHARES_PER_ACTOR = 8
MAX_VIDEOS_AT_WORK = 1024
"""In the shares that actors have at a time, if shares of at least 4 allow it: the fewer they are,
the fewer parts are open, and each of these goes into the journal by itself."""


@dataclass(frozen=True)
class PartPlan:
    """All videos, in the order of their names, and the part that each belongs to.

    Attributes:
        videos: rows ``video_id``, ``uri``, ``part``.
        sizes: how many videos each part has.
    """

    videos: pa.Table
    sizes: NDArray[np.int64]

    def video_ids(self, part: int) -> set[str]:
        """The names of a part's videos."""
        begin, end = int(self._ends[part] - self.sizes[part]), int(self._ends[part])
        return set(self.videos["video_id"][begin:end].to_pylist())

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """The row after each part's last one."""
        return np.cumsum(self.sizes)


def plan_parts(videos: pa.Table, *, stride_seconds: float, bytes_per_clip: int) -> PartPlan:
    """Cut the videos into parts of at most 64, and of about 256 MiB by their declared durations.

    Args:
        videos: rows of VIDEOS.
        stride_seconds: from one clip to the next.
        bytes_per_clip: of a feature.
    """
    ordered = _by_name(videos.select(["video_id", "uri", "duration_seconds"]))
    clips = np.maximum(1, ordered["duration_seconds"].to_numpy() / stride_seconds)
    parts = np.empty(len(clips), np.int32)
    part = count = 0
    num_bytes = 0.0
    for video, video_bytes in enumerate(np.minimum(clips * bytes_per_clip, MAX_PART_BYTES)):
        if count and (count == MAX_PART_VIDEOS or num_bytes + video_bytes > MAX_PART_BYTES):
            part, count, num_bytes = part + 1, 0, 0.0
        parts[video] = part
        count += 1
        num_bytes += video_bytes
    planned = ordered.drop_columns(["duration_seconds"]).append_column("part", pa.array(parts))
    return PartPlan(planned, np.bincount(parts))


def _by_name(videos: pa.Table) -> pa.Table:
    """The rows in the order of their names, in which `prepare` has them: then it takes no copy."""
    names = videos["video_id"]
    is_sorted = pc.all(pc.less_equal(names[:-1], names[1:]), min_count=0).as_py()
    return videos if is_sorted else videos.sort_by("video_id")


def work_shares(todo: pa.Table, *, num_actors: int, only_single: bool = False) -> list[pa.Table]:
    """Cut the work into shares, large ones first and single videos last.

    Ray takes milliseconds for a share; with single videos in the end, all actors finish together.

    Args:
        todo: one row a video.
        num_actors: how many actors may take shares at a time.
        only_single: a share a video: what one of them does to its actor concerns no other.
    """
    largest = (
        1
        if only_single
        else max(MIN_SHARE_VIDEOS, min(MAX_SHARE_VIDEOS, MAX_VIDEOS_AT_WORK // num_actors))
    )
    shares, begin = [], 0
    while begin < todo.num_rows:
        left = todo.num_rows - begin
        length = min(largest, max(1, left // (SHARES_PER_ACTOR * num_actors)))
        shares.append(todo.slice(begin, length))
        begin += length
    return shares
