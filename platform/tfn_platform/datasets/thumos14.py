"""THUMOS'14: the csv files of the field, or the text files of the original development kit.

The field trains on the 200 annotated videos of THUMOS's *validation* set and evaluates on those of
its *test* set: their subsets are "training" and "validation" here, as everywhere else. Segments
called Ambiguous are no class: they are left out and their number is logged.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.annotation_fields import (
    iter_csv_rows,
    make_segment,
    make_video,
    parse_seconds,
)
from tfn_platform.errors import DataError

logger = logging.getLogger(__name__)

SUBSETS = {"val": "training", "test": "validation"}
AMBIGUOUS = "Ambiguous"


@dataclass(frozen=True)
class _Line:
    video_id: str
    segment: LabelledSegment


def read_thumos14(folder: Path) -> list[AnnotatedVideo]:
    """Videos of `{val,test}_Annotation.csv` or, without those, of `annotation_{val,test}/*.txt`.

    Durations are known where a `{val,test}_video_info.csv` lists the video. A folder may hold one
    of the two sets only. Videos are in the order of their ids, segments in that of their times.

    Raises:
        DataError: naming file and line.
    """
    videos = []
    for part, subset in SUBSETS.items():
        csv_path, text_folder = folder / f"{part}_Annotation.csv", folder / f"annotation_{part}"
        if csv_path.exists():
            lines = list(_iter_csv(csv_path))
        elif text_folder.is_dir():
            lines = list(_iter_text(text_folder, part))
        else:
            continue
        videos += _group(lines, subset=subset, durations=_read_durations(folder, part))
    if not videos:
        raise DataError(
            f"{folder} holds neither val_Annotation.csv, test_Annotation.csv, annotation_val/ nor "
            "annotation_test/ with any annotation in it"
        )
    return videos


def _iter_csv(path: Path) -> Iterator[_Line]:
    for where, row in iter_csv_rows(path, columns=("video", "type", "start", "end")):
        yield _Line(row["video"], make_segment(row["type"], row["start"], row["end"], where=where))


def _iter_text(folder: Path, part: str) -> Iterator[_Line]:
    """One file a class, `<class>_<part>.txt`; a line is "video start end"."""
    for path in sorted(folder.glob(f"*_{part}.txt")):
        label = path.name.removesuffix(f"_{part}.txt")
        for number, text in enumerate(path.read_text().splitlines(), start=1):
            fields = text.split()
            if not fields:
                continue
            if len(fields) != 3:
                raise DataError(f'{path}, line {number} must be "video start end", got {text!r}')
            segment = make_segment(label, *fields[1:], where=f"{path}, line {number}")
            yield _Line(fields[0], segment)


def _read_durations(folder: Path, part: str) -> dict[str, float]:
    """Seconds by video: frame count by frame rate."""
    path = folder / f"{part}_video_info.csv"
    durations = {}
    if path.exists():
        for where, row in iter_csv_rows(path, columns=("video", "fps", "count")):
            rate = parse_seconds(row["fps"], where=f"{where}, column fps")
            if rate <= 0:
                raise DataError(f"{where}, column fps must be positive, got {rate}")
            count = parse_seconds(row["count"], where=f"{where}, column count")
            durations[row["video"]] = count / rate
    return durations


def _group(lines: list[_Line], *, subset: str, durations: dict[str, float]) -> list[AnnotatedVideo]:
    """Gather each video's lines; a video with ambiguous ones only stays, without segments."""
    by_video: dict[str, list[LabelledSegment]] = {}
    num_ambiguous = 0
    for line in lines:
        segments = by_video.setdefault(line.video_id, [])
        if line.segment.label == AMBIGUOUS:
            num_ambiguous += 1
        else:
            segments.append(line.segment)
    logger.info("%s: left out %d segments called %s", subset, num_ambiguous, AMBIGUOUS)
    return [
        make_video(
            video_id,
            subset=subset,
            duration_seconds=durations.get(video_id),
            segments=sorted(segments, key=lambda s: (s.start_seconds, s.end_seconds, s.label)),
            where=f"video {video_id!r}",
        )
        for video_id, segments in sorted(by_video.items())
    ]
