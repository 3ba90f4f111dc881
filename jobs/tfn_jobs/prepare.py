"""Job: match annotations with video files, and write VIDEOS, ANNOTATIONS, QUARANTINE."""

import hashlib
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from tfn_jobs.console import with_progress
from tfn_jobs.data_location import DataLocation, read_annotations, split_uri, video_sizes
from tfn_platform.datasets.annotated_video import AnnotatedVideo
from tfn_platform.errors import DataError, StageError
from tfn_platform.map_table import map_rows
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import ANNOTATIONS, QUARANTINE, VIDEOS, QuarantineReason
from tfn_platform.video import VideoError, probe_video

FINGERPRINT_BYTES = 1 << 16


def prepare(
    location: DataLocation, stage: Stage, folder: StageFolder, *, subsets: tuple[str, ...]
) -> dict[str, int]:
    """Look into every annotated video of `subsets` and write the three tables.

    Raises:
        DataError: the annotation cannot be read, or has no video of one of the subsets.
        StageError: more videos are unusable than `max_quarantined_share` allows.
    """
    annotated = [video for video in read_annotations(location) if video.subset in subsets]
    for subset in subsets:
        if not any(video.subset == subset for video in annotated):
            raise DataError(f"{location.annotations_uri}: no video of subset {subset!r}")
    rows = _locate(annotated, location.videos_uri)
    looked_into = with_progress(
        map_rows(rows, _look_into), total=len(rows), what="prepare", unit="video"
    )
    results = list(looked_into)
    usable = [row for row in results if not row["reason"]]
    unusable = [row for row in results if row["reason"]]
    _write(stage, folder, VIDEOS, usable)
    _write(
        stage, folder, QUARANTINE, [{**row, "stage": stage.name, "attempts": 1} for row in unusable]
    )
    _write(stage, folder, ANNOTATIONS, _segment_rows(annotated))
    share = len(unusable) / len(results)
    if share > location.max_quarantined_share:
        raise StageError(
            f"{len(unusable)} of {len(results)} videos cannot be used, more than the share of "
            f"{location.max_quarantined_share:g} that dataset.max_quarantined_share allows; first: "
            f"{unusable[0]['uri']}: {unusable[0]['reason']} ({unusable[0]['detail']})"
        )
    return {"videos": len(usable), "quarantined": len(unusable)}


def _locate(annotated: list[AnnotatedVideo], videos_uri: str) -> list[dict[str, Any]]:
    """Find the file of each annotated video; a missing one keeps the name that it should have."""
    sizes = video_sizes(videos_uri)
    by_stem = {PurePosixPath(name).stem: name for name in sizes}
    rows = []
    for video in annotated:
        name = by_stem.get(video.video_id) or by_stem.get(f"v_{video.video_id}")
        rows.append(
            {
                "video_id": video.video_id,
                "subset": video.subset,
                "uri": f"{videos_uri}/{name or video.video_id}",
                "size_bytes": sizes[name] if name else -1,
            }
        )
    return rows


def _look_into(row: dict[str, Any]) -> dict[str, Any]:
    """Read one file's header: what VIDEOS needs, or why the file is of no use."""
    nothing = {"duration_seconds": 0.0, "frame_rate": 0.0, "width": 0, "height": 0}
    result = {**row, **nothing, "fingerprint": "", "reason": "", "detail": ""}
    if row["size_bytes"] < 0:
        return {**result, "reason": str(QuarantineReason.MISSING_FILE), "detail": "no such file"}
    try:
        info = probe_video(row["uri"])
    except VideoError as error:
        return {**result, "reason": str(error.reason), "detail": error.detail}
    return {
        **result,
        "duration_seconds": info.duration_seconds,
        "frame_rate": info.frame_rate,
        "width": info.width,
        "height": info.height,
        "fingerprint": _fingerprint(row["uri"], row["size_bytes"]),
    }


def _fingerprint(uri: str, size_bytes: int) -> str:
    """A hash of the file's size and of its first and last 64 KiB."""
    store, name = split_uri(uri)
    digest = hashlib.sha256(str(size_bytes).encode())
    with store.filesystem.open_input_file(store.path(name)) as stream:
        digest.update(stream.read(FINGERPRINT_BYTES))
        stream.seek(max(0, size_bytes - FINGERPRINT_BYTES))
        digest.update(stream.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:16]


def _segment_rows(annotated: list[AnnotatedVideo]) -> list[dict[str, Any]]:
    return [
        {
            "video_id": video.video_id,
            "subset": video.subset,
            "label": segment.label,
            "start_seconds": segment.start_seconds,
            "end_seconds": segment.end_seconds,
        }
        for video in annotated
        for segment in video.segments
    ]


def _write(stage: Stage, folder: StageFolder, table: Any, rows: list[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: row["video_id"])
    columns = {name: [row[name] for row in ordered] for name in table.schema.names}
    data = pa.table(columns, schema=table.schema)
    write_table(folder, table, data, contract=stage.contract(table))
