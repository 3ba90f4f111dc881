"""The ActivityNet layout, which HACS Segments and many converted data sets share.

`{"database": {video_id: {"subset", "duration", "annotations": [{"label", "segment"}]}}}`. Found in
the wild and read here: durations that are null, strings or absent (HACS, THUMOS'14 conversions,
198 videos of ActivityNet 1.3), segments of strings, no annotations for a testing subset.
"""

from pathlib import Path
from typing import Any

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.annotation_fields import (
    get_key,
    get_list,
    get_object,
    load_json_object,
    make_segment,
    make_video,
    parse_duration,
)
from tfn_platform.errors import DataError


def read_activitynet(path: Path) -> list[AnnotatedVideo]:
    """All videos of the file, in its order; subsets are named as the file names them.

    Raises:
        DataError: naming file, video and key.
    """
    content = load_json_object(path)
    database = get_object(
        get_key(content, "database", where=str(path)), where=f"{path}: key 'database'"
    )
    videos = []
    for video_id, value in database.items():
        where = f"{path}: video {video_id!r}"
        entry = get_object(value, where=where)
        subset = get_key(entry, "subset", where=where)
        if not isinstance(subset, str):
            raise DataError(f"{where}, key 'subset' must be a string, got {subset!r}")
        videos.append(
            make_video(
                video_id,
                subset=subset,
                duration_seconds=parse_duration(
                    entry.get("duration"), where=f"{where}, key 'duration'"
                ),
                segments=read_segments(entry.get("annotations") or [], where=where),
                where=where,
            )
        )
    return videos


def read_segments(annotations: Any, *, where: str) -> list[LabelledSegment]:
    """The list under a video's "annotations"."""
    segments = []
    for index, value in enumerate(get_list(annotations, where=f"{where}, key 'annotations'")):
        place = f"{where}, annotations[{index}]"
        entry = get_object(value, where=place)
        segment = get_list(get_key(entry, "segment", where=place), where=f"{place}.segment")
        if len(segment) != 2:
            raise DataError(f"{place}.segment must hold start and end, got {segment!r}")
        segments.append(make_segment(get_key(entry, "label", where=place), *segment, where=place))
    return segments
