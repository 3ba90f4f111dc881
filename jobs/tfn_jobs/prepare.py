"""Job: look into every video of a data set, and write VIDEOS, ANNOTATIONS, QUARANTINE.

Each file is opened in a process of its own, so that one which hangs or crashes the decoder costs no
more than itself. What is found out is written down every few seconds: a run that was killed goes
on from there.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from tfn_jobs.console import progress_bar, say
from tfn_jobs.data_location import DataLocation
from tfn_jobs.probe_journal import ProbeJournal
from tfn_platform.attempts import with_attempts
from tfn_platform.datasets.annotated_video import AnnotatedVideo
from tfn_platform.decode_process import DecodeProcess
from tfn_platform.errors import DataError, StageError
from tfn_platform.map_table import map_rows
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import ANNOTATIONS, QUARANTINE, VIDEOS, QuarantineReason, Table
from tfn_platform.video import VideoError
from tfn_platform.video_probe import check_expected_duration

FINGERPRINT_BYTES = 1 << 16

Row = dict[str, Any]


@dataclass(frozen=True)
class PrepareJob:
    """What preparing reads and writes.

    Attributes:
        location: the videos, and the annotation if there is one.
        stage: that makes the tables.
        folder: of that stage.
        subsets: annotated subsets whose videos are looked into; without an annotation, all are.
        stall_seconds: after which a file whose reader gives no sign of life is given up.
        max_attempts: on a file whose failure need not be its fault.
        salvage: let videos pass whose damage extraction can work around.
    """

    location: DataLocation
    stage: Stage
    folder: StageFolder
    subsets: tuple[str, ...] = ()
    stall_seconds: float = 120.0
    max_attempts: int = 2
    salvage: bool = False


def prepare(job: PrepareJob) -> dict[str, int]:
    """Look into the videos that no former run of the stage could use, and write the tables.

    Returns:
        Figures for the commit: videos that can be used, videos in quarantine.

    Raises:
        DataError: the data set cannot be read, or has no video of one of the subsets.
        StageError: more videos are unusable than `max_quarantined_share` allows. The tables are
            there all the same, and a further run looks into those videos only.
    """
    annotated = _annotated(job)
    listed = job.location.listing.rows if annotated is None else job.location.locate(annotated)
    if job.location.listing.num_passed_over:
        say(f"passed over: {job.location.listing.num_passed_over} files without a video's ending")
    journal = ProbeJournal(job.stage, job.folder)
    _look_into_rest(job, listed, journal)
    probed = journal.rows()
    unusable = probed.filter(pc.not_equal(probed["reason"], ""))
    num_usable = probed.num_rows - unusable.num_rows
    _write(job, VIDEOS, probed.filter(pc.equal(probed["reason"], "")))
    stages = pa.array([job.stage.name] * unusable.num_rows, pa.string())
    _write(job, QUARANTINE, unusable.append_column("stage", stages))
    _write(job, ANNOTATIONS, _segments(annotated or []))
    _check_share(job, unusable, num_videos=probed.num_rows)
    journal.delete()
    return {"videos": num_usable, "quarantined": unusable.num_rows}


def _look_into_rest(job: PrepareJob, listed: pa.Table, journal: ProbeJournal) -> None:
    """Put into the journal what is not known of the listed videos yet."""
    todo = journal.without_known(listed)
    done = listed.num_rows - todo.num_rows
    try:
        with progress_bar(listed.num_rows, what="prepare", unit="video", done=done) as bar:
            rows = _rows_to_probe(todo, journal.former_attempts)
            # In no order: one file that takes long holds back none of the others.
            for row in map_rows(rows, _Probe(job), ordered=False):
                journal.add(row)
                bar.update()
    finally:
        journal.flush()


def _annotated(job: PrepareJob) -> list[AnnotatedVideo] | None:
    """The annotated videos of the subsets; None where there is no annotation."""
    annotation = job.location.annotation
    if annotation is None:
        return None
    videos = annotation.read()
    for subset in job.subsets:
        if not any(video.subset == subset for video in videos):
            raise DataError(f"{annotation.uri}: no video of subset {subset!r}")
    return [video for video in videos if video.subset in job.subsets]


def _rows_to_probe(listed: pa.Table, former_attempts: dict[str, int]) -> pa.Table:
    places = listed.select(["video_id", "uri", "subset"])
    tried = pc.index_in(places["video_id"], pa.array(former_attempts.keys(), pa.string()))
    attempts = pc.fill_null(pa.array(former_attempts.values(), pa.int64()).take(tried), 0)
    expected_seconds = pc.fill_null(listed["expected_seconds"], 0.0)
    return places.append_column("expected_seconds", expected_seconds).append_column(
        "former_attempts", attempts
    )


class _Probe:
    """Reads one file's header: what VIDEOS needs, or why the file is of no use."""

    def __init__(self, job: PrepareJob) -> None:
        self._stall_seconds = job.stall_seconds
        self._max_attempts = job.max_attempts
        self._duration_tolerance = job.location.duration_tolerance
        self._salvage = job.salvage

    def __call__(self, row: Row) -> Row:
        result = {
            **{name: row[name] for name in ("video_id", "uri", "subset")},
            **{"duration_seconds": row["expected_seconds"], "frame_rate": 0.0},
            **{"width": 0, "height": 0, "size_bytes": 0, "fingerprint": ""},
            **{"reason": "", "detail": ""},
        }
        try:
            found, attempts = with_attempts(
                lambda: self._look_into(row), max_attempts=self._max_attempts
            )
            result |= found
        except VideoError as error:
            attempts = error.attempts
            result |= {"reason": str(error.reason), "detail": error.detail}
        return {**result, "attempts": attempts + row["former_attempts"]}

    def _look_into(self, row: Row) -> Row:
        uri, expected_seconds = row["uri"], row["expected_seconds"]
        try:
            info = _decode_process(self._stall_seconds).probe(uri)
        except VideoError as error:
            if self._salvage and error.reason.is_recoverable:
                # Nothing is known of it but its bytes; extraction uses it as far as it goes.
                return _identity(uri)
            raise
        if self._duration_tolerance is not None and expected_seconds:
            check_expected_duration(
                uri,
                actual_seconds=info.duration_seconds,
                expected_seconds=expected_seconds,
                tolerance_share=self._duration_tolerance,
            )
        return {
            "duration_seconds": info.duration_seconds,
            "frame_rate": info.frame_rate,
            "width": info.width,
            "height": info.height,
            **_identity(uri),
        }


@cache
def _decode_process(stall_seconds: float) -> DecodeProcess:
    """One for all files that a worker process looks into; it ends with the worker."""
    return DecodeProcess(stall_seconds=stall_seconds)


def _identity(uri: str) -> Row:
    """Bytes of a file, and a hash of their number and of the first and last 64 KiB."""
    try:
        is_local = "://" not in uri
        filesystem, path = (fs.LocalFileSystem(), uri) if is_local else fs.FileSystem.from_uri(uri)
        with filesystem.open_input_file(path) as stream:
            size_bytes = stream.size()
            digest = hashlib.sha256(str(size_bytes).encode())
            digest.update(stream.read(FINGERPRINT_BYTES))
            stream.seek(max(0, size_bytes - FINGERPRINT_BYTES))
            digest.update(stream.read(FINGERPRINT_BYTES))
    except OSError as error:
        # It was there a moment ago: storage that fails, or a file that has just been deleted.
        raise VideoError(QuarantineReason.STORAGE_ERROR, f"{uri}: {error}") from error
    return {"size_bytes": size_bytes, "fingerprint": digest.hexdigest()[:16]}


def _segments(annotated: Sequence[AnnotatedVideo]) -> pa.Table:
    """All segments, in the order of their videos' ids."""
    ordered = sorted(annotated, key=lambda video: video.video_id)
    segments = [(video, segment) for video in ordered for segment in video.segments]
    columns = {
        "video_id": [video.video_id for video, _ in segments],
        "subset": [video.subset for video, _ in segments],
        "label": [segment.label for _, segment in segments],
        "start_seconds": [segment.start_seconds for _, segment in segments],
        "end_seconds": [segment.end_seconds for _, segment in segments],
    }
    return pa.table(columns, schema=ANNOTATIONS.schema)


def _write(job: PrepareJob, table: Table, rows: pa.Table) -> None:
    chosen = rows.select(table.schema.names)
    write_table(job.folder, table, chosen, contract=job.stage.contract(table))


def _check_share(job: PrepareJob, unusable: pa.Table, *, num_videos: int) -> None:
    """Say what is in quarantine, and refuse more than the share that is allowed."""
    if not unusable.num_rows:
        return
    counts = Counter(unusable["reason"].to_pylist()).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    place = f"{job.folder.uri}/{QUARANTINE.name.lower()}"
    say(f"quarantine: {unusable.num_rows} of {num_videos} videos ({reasons}): {place}")
    share = unusable.num_rows / num_videos
    if share > job.location.max_quarantined_share:
        (first,) = unusable.slice(0, 1).to_pylist()
        raise StageError(
            f"{unusable.num_rows} of {num_videos} videos cannot be used, more than the share of "
            f"{job.location.max_quarantined_share:g} that dataset.max_quarantined_share allows "
            f"({reasons}); first: {first['detail']} ({first['reason']}). {place} lists them all; "
            "raise the share to go on without them, or mend them and run again"
        )
