"""ActivityNet 1.3 as the BMN repository (JJBOY) lays it out.

A folder with `anet_anno_action.json` (by video: duration_second and annotations) and
`video_info_new.csv` (by video: subset). The testing subset has no labels.
"""

from pathlib import Path

from tfn_platform.datasets.activitynet import read_segments
from tfn_platform.datasets.annotated_video import AnnotatedVideo
from tfn_platform.datasets.annotation_fields import (
    get_key,
    get_object,
    iter_csv_rows,
    load_json_object,
    make_video,
    parse_duration,
)
from tfn_platform.errors import DataError

ANNOTATION_NAME = "anet_anno_action.json"
VIDEO_INFO_NAME = "video_info_new.csv"


def read_activitynet_bmn(folder: Path) -> list[AnnotatedVideo]:
    """All videos of the two files, in the order of the csv.

    Raises:
        DataError: naming file, video and key; also for a video that only one file knows.
    """
    annotation_path = folder / ANNOTATION_NAME
    entries = load_json_object(annotation_path)
    videos = []
    for where_row, row in iter_csv_rows(folder / VIDEO_INFO_NAME, columns=("video", "subset")):
        video_id = row["video"]
        where = f"{annotation_path}: video {video_id!r}"
        if video_id not in entries:
            raise DataError(f"{where_row}: video {video_id!r} is not in {annotation_path}")
        entry = get_object(entries.pop(video_id), where=where)
        duration = get_key(entry, "duration_second", where=where)
        videos.append(
            make_video(
                video_id,
                subset=row["subset"],
                duration_seconds=parse_duration(duration, where=f"{where}, key 'duration_second'"),
                segments=read_segments(get_key(entry, "annotations", where=where), where=where),
                where=where,
            )
        )
    if entries:
        raise DataError(
            f"{annotation_path}: {len(entries)} videos have no row in {VIDEO_INFO_NAME}, "
            f"for instance {next(iter(entries))!r}"
        )
    return videos
