"""Job: turn features that others published into FEATURES, after checking what they claim to be.

Parts are written while the files are read, one video at a time; a job that was killed goes on after
the last whole part. Only what passes every check is committed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfn_jobs.console import progress_bar, say
from tfn_jobs.import_spec import ImportSpec
from tfn_jobs.import_verdict import Findings, check_all, check_lengths, fits, misfits
from tfn_platform.errors import DataError
from tfn_platform.feature_footer import stored_videos
from tfn_platform.feature_index import write_index
from tfn_platform.feature_table import Values, VideoFeatures, feature_part, write_feature_part
from tfn_platform.foreign_features.durations import read_durations
from tfn_platform.foreign_features.source import (
    VIDEO_ID,
    FeatureSource,
    find_features,
    iter_features,
)
from tfn_platform.parquet import write_table
from tfn_platform.spec import spec_hash
from tfn_platform.stages import Stage, run_stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES, QUARANTINE

STAGE_NAME = "import-features"
VIDEOS_PER_PART = 64
BYTES_PER_PART = 256 * 1024**2
NUM_LOOKED_AT_FIRST = 64


@dataclass(frozen=True)
class ImportedFeatures:
    """What an import made, or found made.

    Attributes:
        folder: the stage with FEATURES, its index, and QUARANTINE.
        is_new: whether it was made now.
        figures: counts of videos, clips, quarantined and unchecked videos.
    """

    folder: StageFolder
    is_new: bool
    figures: dict[str, Any]


def import_features(spec: ImportSpec, store: Store) -> ImportedFeatures:
    """Import features unless that is done already.

    Raises:
        DataError: the files do not hold what the spec declares; the message lists the worst.
    """
    source = find_features(spec.source, format_name=spec.format, files=spec.files, keys=spec.keys)
    durations = _durations(spec, source)
    stage = import_stage(spec, source=source, durations=durations)

    def make(folder: StageFolder) -> dict[str, int]:
        return _import_into(folder, stage=stage, spec=spec, source=source, durations=durations)

    is_new = run_stage(stage, store, make)
    folder = stage.folder(store)
    return ImportedFeatures(folder, is_new, folder.read_done()["figures"])


def import_stage(
    spec: ImportSpec, *, source: FeatureSource, durations: dict[str, float | None]
) -> Stage:
    """The stage of an import; its key changes with the spec, the files and the durations."""
    settings = spec.model_dump(mode="json", exclude={"source", "durations"})
    found = {"files": source.fingerprint, "durations": spec_hash(durations)}
    return Stage(STAGE_NAME, {**settings, "found": found})


def _durations(spec: ImportSpec, source: FeatureSource) -> dict[str, float | None]:
    """The videos that are to be imported, and how long each is; refuses unknown ones."""
    if spec.durations is None:
        named: dict[str, float | None] = dict.fromkeys(source.places)
    else:
        uri = spec.durations.rstrip("/")
        parent, _, name = uri.rpartition("/")
        named = read_durations(
            Store.open(parent or "/"), name, layout=spec.durations_format, subsets=spec.subsets
        )
    left_out = set(spec.leave_out)
    unknown = sorted(left_out - set(named) - set(source.places))
    if unknown:
        raise DataError(f"leave_out: there is no video {unknown[0]!r} to leave out")
    wanted = {video: seconds for video, seconds in named.items() if video not in left_out}
    found = [video for video in source.places if video not in left_out]
    extra = [video for video in found if video not in wanted]
    if len(extra) == len(found):
        raise DataError(_nothing_in_common(spec, found, list(wanted)))
    # Of subsets that are not asked for there may be features.
    if extra and spec.extra_videos == "refuse" and not spec.subsets:
        raise DataError(
            f"{spec.source}: {len(extra)} of {len(found)} videos are not in {spec.durations}: "
            f"{', '.join(extra[:5])}; `extra_videos: leave_out` passes them over"
        )
    return wanted


def _nothing_in_common(spec: ImportSpec, found: list[str], wanted: list[str]) -> str:
    message = (
        f"{spec.source}: none of its {len(found)} videos ({', '.join(found[:3])}, …) is among the "
        f"{len(wanted)} of {spec.durations} ({', '.join(wanted[:3])}, …)"
    )
    if any(f"v_{video}" in set(found) for video in wanted):
        has_many = any(VIDEO_ID in key for key in spec.keys)
        message += (
            '; `keys: ["v_{video_id}…"]` takes the v_ off'
            if has_many
            else "; `files: **/v_{video_id}…` takes the v_ off"
        )
    return message


def _import_into(
    folder: StageFolder,
    *,
    stage: Stage,
    spec: ImportSpec,
    source: FeatureSource,
    durations: dict[str, float | None],
) -> dict[str, int]:
    wanted = [video for video in source.places if video in durations]
    missing = sorted(set(durations) - set(wanted))
    if source.num_other_files:
        say(f"{spec.source}: {source.num_other_files} other files are passed over")
    findings = Findings(durations)
    findings.num_clips.update(_clips_of_parts(folder))
    if not findings.num_clips and len(wanted) > 4 * NUM_LOOKED_AT_FIRST:
        _look_at_some(spec, source=source, wanted=wanted, durations=durations)
    _write_parts(folder, stage=stage, spec=spec, source=source, wanted=wanted, findings=findings)
    try:
        reasons = check_all(spec, findings, missing=missing)
    except DataError:
        _delete_parts(folder)
        raise
    details = misfits(spec, findings)
    _write_quarantine(folder, stage=stage, source=source, reasons=reasons, details=details)
    num_videos = write_index(folder)
    if num_videos == 0:
        raise DataError(f"{spec.source}: no video could be imported")
    accepted = [video for video in findings.num_clips if video not in reasons]
    return {
        "videos": num_videos,
        "clips": sum(findings.num_clips[video] for video in accepted),
        "quarantined": len(reasons),
        "unchecked": sum(durations[video] is None for video in accepted),
    }


def _look_at_some(
    spec: ImportSpec,
    *,
    source: FeatureSource,
    wanted: list[str],
    durations: dict[str, float | None],
) -> None:
    """Refuse early, by a few videos from all over, what is wrong with most of them."""
    positions = np.linspace(0, len(wanted) - 1, NUM_LOOKED_AT_FIRST).astype(int)
    findings = Findings(durations)
    chosen = [wanted[position] for position in positions]
    for video_id, values in iter_features(source, spec.layout, video_ids=chosen):
        _note(findings, video_id, values)
    count = f"{NUM_LOOKED_AT_FIRST} videos looked at first"
    if 2 * len(findings.damaged) > NUM_LOOKED_AT_FIRST:
        name, problem = next(iter(findings.damaged.items()))
        raise DataError(
            f"{spec.source}: {len(findings.damaged)} of {count} cannot be used, such as {name}: "
            f"{problem}"
        )
    check_lengths(spec, findings, looked_at=count)


def _note(findings: Findings, video_id: str, values: Values | DataError) -> None:
    if isinstance(values, DataError):
        findings.damaged[video_id] = str(values)
    else:
        findings.num_clips[video_id] = len(values)


def _write_parts(
    folder: StageFolder,
    *,
    stage: Stage,
    spec: ImportSpec,
    source: FeatureSource,
    wanted: list[str],
    findings: Findings,
) -> None:
    """Read what no part holds yet, and write the parts that follow; notes what was found."""
    contract = stage.contract(FEATURES, features=spec.contract)
    number = len(folder.store.list_files(folder.table("features")))
    done = set(findings.num_clips)
    rest = [video for video in wanted if video not in done]
    with progress_bar(len(wanted), what="import", unit="video", done=len(done)) as bar:

        def accepted() -> Iterator[VideoFeatures]:
            for video_id, values in iter_features(source, spec.layout, video_ids=rest):
                bar.update()
                _note(findings, video_id, values)
                if isinstance(values, DataError):
                    continue
                duration = findings.durations[video_id]
                if fits(spec, num_clips=len(values), duration=duration):
                    yield VideoFeatures(video_id, values, spec.contract.center_seconds(len(values)))

        for videos in _in_parts(accepted()):
            write_feature_part(folder, videos, contract=contract, part=number)
            number += 1
            # Or this part would stay in memory while the next one is gathered.
            del videos


def _in_parts(videos: Iterator[VideoFeatures]) -> Iterator[list[VideoFeatures]]:
    """Runs of videos, of a part's size; the order alone decides where one ends."""
    part: list[VideoFeatures] = []
    num_bytes = 0
    for video in videos:
        part.append(video)
        num_bytes += video.values.nbytes
        if len(part) == VIDEOS_PER_PART or num_bytes >= BYTES_PER_PART:
            yield part
            part, num_bytes = [], 0
    if part:
        yield part


def _clips_of_parts(folder: StageFolder) -> dict[str, int]:
    """The videos of the parts that an earlier, killed job wrote, and their clips."""
    store = folder.store
    clips: dict[str, int] = {}
    for number in range(len(store.list_files(folder.table("features")))):
        name = feature_part(folder, number)
        with store.filesystem.open_input_file(store.path(name)) as stream:
            for video in stored_videos(pq.ParquetFile(stream), source=store.uri(name)):
                clips[video.video_id] = video.num_clips
    return clips


def _delete_parts(folder: StageFolder) -> None:
    """What was refused must not fill the storage; the last goes first, so that no gap is left."""
    table = folder.table("features")
    for name in reversed(folder.store.list_files(table)):
        folder.store.delete_file(f"{table}/{name}")


def _write_quarantine(
    folder: StageFolder,
    *,
    stage: Stage,
    source: FeatureSource,
    reasons: dict[str, str],
    details: dict[str, str],
) -> None:
    names = sorted(reasons)
    files = [source.places[name].file if name in source.places else "" for name in names]
    columns = {
        "video_id": names,
        "uri": [source.store.uri(file) if file else "" for file in files],
        "reason": [reasons[name] for name in names],
        "detail": [details.get(name, "no features of this video") for name in names],
        "stage": [stage.name] * len(names),
        "attempts": [1] * len(names),
    }
    rows = pa.table(columns, schema=QUARANTINE.schema)
    write_table(folder, QUARANTINE, rows, contract=stage.contract(QUARANTINE))
