"""A plain csv file for one's own data: a row is a segment, or a video that has none.

Columns video_id, subset, duration_seconds, label, start_seconds, end_seconds. The duration may be
empty; a row with empty label, start and end says that the video exists and shows no action.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.annotation_fields import (
    iter_csv_rows,
    make_segment,
    make_video,
    parse_duration,
)
from tfn_platform.errors import DataError

COLUMNS = ("video_id", "subset", "duration_seconds", "label", "start_seconds", "end_seconds")


@dataclass
class _Entry:
    subset: str
    duration_seconds: float | None
    where: str
    segments: list[LabelledSegment] = field(default_factory=list)


def read_csv_table(path: Path) -> list[AnnotatedVideo]:
    """All videos, in the order in which they first appear.

    Raises:
        DataError: naming file and line; also where two rows disagree about a video.
    """
    entries: dict[str, _Entry] = {}
    for where, row in iter_csv_rows(path, columns=COLUMNS):
        duration = parse_duration(row["duration_seconds"], where=f"{where}, duration_seconds")
        entry = entries.setdefault(row["video_id"], _Entry(row["subset"], duration, where))
        if (entry.subset, entry.duration_seconds) != (row["subset"], duration):
            raise DataError(
                f"{where}: video {row['video_id']!r} has another subset or duration than in "
                f"{entry.where}"
            )
        if row["label"] or row["start_seconds"] or row["end_seconds"]:
            entry.segments.append(
                make_segment(row["label"], row["start_seconds"], row["end_seconds"], where=where)
            )
    return [
        make_video(
            video_id,
            subset=entry.subset,
            duration_seconds=entry.duration_seconds,
            segments=entry.segments,
            where=entry.where,
        )
        for video_id, entry in entries.items()
    ]
