"""Read single fields of annotation files; an error names the file, the video and the key."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.errors import DataError


def load_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    return get_object(content, where=str(path))


def iter_csv_rows(path: Path, *, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row with its place in the file; refuses a file that lacks one of `columns`."""
    reader = csv.DictReader(_read_text(path).splitlines())
    missing = [column for column in columns if column not in (reader.fieldnames or [])]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; it has "
            f"{', '.join(reader.fieldnames or []) or 'none'}"
        )
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        for column in columns:
            if row[column] is None:
                raise DataError(f"{where}: the row ends before column {column}")
        yield where, row


def get_object(value: Any, *, where: str) -> dict[str, Any]:
    """`value` as a JSON object."""
    if not isinstance(value, dict):
        raise DataError(f"{where} must be a JSON object, got {type(value).__name__}")
    return value


def get_list(value: Any, *, where: str) -> list[Any]:
    """`value` as a JSON array."""
    if not isinstance(value, list):
        raise DataError(f"{where} must be a JSON array, got {type(value).__name__}")
    return value


def get_key(entry: dict[str, Any], key: str, *, where: str) -> Any:
    """`entry[key]`, which must be there."""
    if key not in entry:
        raise DataError(f"{where} lacks the key {key!r}; it has {', '.join(map(repr, entry))}")
    return entry[key]


def parse_seconds(value: Any, *, where: str) -> float:
    """A number, or a string that spells one."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise DataError(f"{where} must be a number of seconds, got {value!r}")
    try:
        return float(value)
    except ValueError as error:
        raise DataError(f"{where} must be a number of seconds, got {value!r}") from error


def parse_duration(value: Any, *, where: str) -> float | None:
    """Seconds; None for null and for the empty string."""
    return None if value is None or value == "" else parse_seconds(value, where=where)


def make_segment(label: Any, start: Any, end: Any, *, where: str) -> LabelledSegment:
    """A checked segment from raw fields."""
    if not isinstance(label, str) or not label:
        raise DataError(f"{where}.label must be a non-empty string, got {label!r}")
    start_seconds = parse_seconds(start, where=f"{where}.segment[0]")
    end_seconds = parse_seconds(end, where=f"{where}.segment[1]")
    try:
        return LabelledSegment(label, start_seconds, end_seconds)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def make_video(
    video_id: str,
    *,
    subset: str,
    duration_seconds: float | None,
    segments: Sequence[LabelledSegment],
    where: str,
) -> AnnotatedVideo:
    """A checked video from parsed fields."""
    try:
        return AnnotatedVideo(video_id, subset, duration_seconds, tuple(segments))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the annotation {path}: {error}") from error
