"""Annotated videos and their files: what is found, and why the rest is of no use."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.s3_server import s3_endpoint, s3_root
from tfn_jobs import prepare as prepare_job
from tfn_jobs import probe_journal
from tfn_jobs.data_location import AnnotationFile, DataLocation
from tfn_jobs.prepare import PrepareJob, prepare
from tfn_jobs.probe_journal import PROBED
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.datasets.synthetic_damage import DAMAGE_REASONS, Damage, damage_video
from tfn_platform.decode_process import DecodeProcess
from tfn_platform.errors import DataError, StageError
from tfn_platform.map_table import map_rows
from tfn_platform.parquet import read_parts, read_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import (
    ANNOTATIONS,
    QUARANTINE,
    VIDEOS,
    Contract,
    QuarantineReason,
    Table,
)
from tfn_platform.video import VideoError, VideoInfo

__all__ = ["s3_endpoint", "s3_root"]

PREPARE = Stage("prepare", {})
SUBSETS = ("training", "validation")
SMALL = SyntheticConfig(
    num_training=1,
    num_validation=0,
    min_duration_seconds=2,
    max_duration_seconds=2.5,
    min_segment_seconds=0.6,
    max_segment_seconds=0.8,
    min_short_side=32,
    max_short_side=32,
)
pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def video() -> bytes:
    return render_video(SMALL, 0).data


def write(folder: Path, files: Mapping[str, bytes], subsets: Mapping[str, str]) -> DataLocation:
    (folder / "videos").mkdir()
    for name, data in files.items():
        (folder / "videos" / name).write_bytes(data)
    database = {
        name: {"subset": subset, "annotations": [{"label": "jump", "segment": [0.5, 1.5]}]}
        for name, subset in subsets.items()
    }
    path = folder / "gt.json"
    path.write_text(json.dumps({"database": database}))
    return DataLocation((str(folder / "videos"),), AnnotationFile("activitynet", str(path)), 0.5)


def job_of(location: DataLocation, store: Store, **settings: Any) -> PrepareJob:
    return PrepareJob(location, PREPARE, PREPARE.folder(store), **settings)


def test_files_are_found_with_and_without_prefix(
    video: bytes, tmp_path: Path, store: Store
) -> None:
    files = {"one.mp4": video, "v_two.mp4": video + b"\0", "v_three.mp4": video, "three.mp4": video}
    subsets = {"one": "training", "two": "validation", "three": "training", "other": "testing"}
    location = write(tmp_path, files, subsets)
    job = job_of(location, store, subsets=SUBSETS)
    folder = job.folder
    assert prepare(job) == {"videos": 3, "quarantined": 0}
    PREPARE.commit(store, seconds=0)
    rows = {row["video_id"]: row for row in read_table(folder, VIDEOS)[0].to_pylist()}
    assert list(rows) == ["one", "three", "two"]
    assert rows["two"]["uri"] == f"{tmp_path}/videos/v_two.mp4"
    assert rows["three"]["uri"] == f"{tmp_path}/videos/three.mp4"
    assert rows["one"]["size_bytes"] == len(video)
    assert 1.9 < rows["one"]["duration_seconds"] < 2.6
    assert min(rows["one"]["width"], rows["one"]["height"]) == 32
    assert rows["one"]["fingerprint"] == rows["three"]["fingerprint"] != rows["two"]["fingerprint"]
    annotations, _ = read_table(folder, ANNOTATIONS)
    assert sorted(annotations["video_id"].to_pylist()) == ["one", "three", "two"]
    assert set(annotations["label"].to_pylist()) == {"jump"}


def test_unusable_files_are_quarantined_with_the_reason(
    video: bytes, tmp_path: Path, store: Store
) -> None:
    # A truncated file whose header is whole shows its damage when it is decoded.
    kinds = [kind for kind in Damage if kind is not Damage.TRUNCATED_FAST_START]
    rng = np.random.default_rng(0)
    files = {f"{kind}.mp4": damage_video(video, kind, rng=rng) for kind in kinds}
    names = [str(kind) for kind in kinds] + ["missing"]
    location = write(
        tmp_path, {**files, "good.mp4": video}, dict.fromkeys([*names, "good"], "training")
    )
    job = job_of(location, store, subsets=("training",))
    folder = job.folder
    with pytest.raises(
        StageError, match=r"6 of 7 videos cannot be used, more than the share of 0\.5"
    ) as caught:
        prepare(job)
    # What was found is there for the user to read, though the stage is not finished.
    assert f"{folder.uri}/quarantine lists them all" in str(caught.value)
    assert read_parts(folder, QUARANTINE)[0].num_rows == 6
    assert not folder.is_done
    figures = prepare(replace(job, location=replace(location, max_quarantined_share=6 / 7)))
    assert figures == {"videos": 1, "quarantined": 6}
    PREPARE.commit(store, seconds=0)
    rows = read_table(folder, QUARANTINE)[0].to_pylist()
    reasons = {row["video_id"]: row["reason"] for row in rows}
    expected = {str(kind): str(DAMAGE_REASONS[kind]) for kind in kinds}
    assert reasons == {**expected, "missing": "missing_file"}
    assert {row["stage"] for row in rows} == {"prepare"}
    # Ground truth stays complete: what cannot be used counts as missed.
    assert read_table(folder, ANNOTATIONS)[0].num_rows == 7


def test_a_subset_without_videos_is_refused(video: bytes, tmp_path: Path, store: Store) -> None:
    location = write(tmp_path, {"one.mp4": video}, {"one": "training"})
    with pytest.raises(DataError, match=r"gt\.json: no video of subset 'validation'"):
        prepare(job_of(location, store, subsets=SUBSETS))


def test_videos_without_an_annotation(video: bytes, tmp_path: Path, store: Store) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.mp4", "deep/b.mp4"):
        (tmp_path / "in" / name).write_bytes(video)
    (tmp_path / "in" / "notes.txt").touch()
    job = job_of(DataLocation((str(tmp_path / "in"),)), store)
    assert prepare(job) == {"videos": 2, "quarantined": 0}
    PREPARE.commit(store, seconds=0)
    rows = read_table(job.folder, VIDEOS)[0]
    assert rows["video_id"].to_pylist() == ["a", "deep/b"]
    assert rows["subset"].to_pylist() == ["all", "all"]
    assert read_table(job.folder, ANNOTATIONS)[0].num_rows == 0
    assert read_table(job.folder, QUARANTINE)[0].num_rows == 0


def manifest_of(folder: Path, durations: Sequence[float | None], video: bytes) -> DataLocation:
    lines = ["path,video_id,duration_seconds"]
    for number, duration in enumerate(durations):
        lines.append(f"v.mp4,v{number},{'' if duration is None else duration}")
    (folder / "v.mp4").write_bytes(video)
    (folder / "list.csv").write_text("\n".join(lines))
    return DataLocation((f"{folder}/list.csv",), max_quarantined_share=1)


@pytest.mark.parametrize(("tolerance", "refused"), [(0.1, ["v2", "v3"]), (0.9, ["v3"]), (None, [])])
def test_durations_that_differ(
    video: bytes, tmp_path: Path, store: Store, tolerance: float | None, refused: list[str]
) -> None:
    """The file lasts 2 to 2.5 seconds: 4 are within 2 seconds of that, 10 within 90 %."""
    location = manifest_of(tmp_path, [None, 4, 10, 100], video)
    job = job_of(replace(location, duration_tolerance=tolerance), store)
    prepare(job)
    rows = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    assert [row["video_id"] for row in rows] == refused
    assert {row["reason"] for row in rows} <= {"duration_mismatch"}


Fault = Callable[[str, int], VideoInfo]
INFO = VideoInfo(width=4, height=3, frame_rate=25.0, duration_seconds=2.0, rotation=0, codec="h264")


class Probing:
    """Stands for the decoding process, and counts what it is asked."""

    def __init__(self, fault: Fault) -> None:
        self.asked: Counter[str] = Counter()
        self._fault = fault

    def probe(self, uri: str) -> VideoInfo:
        name = Path(uri).stem
        self.asked[name] += 1
        return self._fault(name, self.asked[name])


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], Probing]:
    """Puts a stand-in into the place of the decoding process."""

    def make(fault: Fault) -> Probing:
        process = Probing(fault)
        monkeypatch.setattr(prepare_job, "_decode_process", lambda stall_seconds: process)
        monkeypatch.setattr("tfn_platform.attempts.FIRST_WAIT_SECONDS", 0.0)
        return process

    return make


def many(folder: Path, count: int) -> DataLocation:
    (folder / "in").mkdir()
    for number in range(count):
        (folder / "in" / f"v{number}.mp4").write_bytes(b"%d" % number)
    return DataLocation((str(folder / "in"),), max_quarantined_share=0.5)


def test_only_transient_failures_are_tried_again(
    tmp_path: Path, store: Store, probing: Callable[[Fault], Probing]
) -> None:
    def fault(name: str, attempt: int) -> VideoInfo:
        if name == "v0" or (name == "v1" and attempt < 3):
            raise VideoError(QuarantineReason.STORAGE_ERROR, f"{name}: no answer")
        if name == "v2":
            raise VideoError(QuarantineReason.NOT_A_VIDEO, f"{name}: text")
        return INFO

    process = probing(fault)
    job = job_of(many(tmp_path, 5), store, max_attempts=3)
    assert prepare(job) == {"videos": 3, "quarantined": 2}
    assert process.asked == {"v0": 3, "v1": 3, "v2": 1, "v3": 1, "v4": 1}
    rows = {row["video_id"]: row for row in read_parts(job.folder, QUARANTINE)[0].to_pylist()}
    assert {name: row["attempts"] for name, row in rows.items()} == {"v0": 3, "v2": 1}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("is_flushed", [True, False])
def test_a_run_that_was_killed_goes_on(
    tmp_path: Path,
    store: Store,
    probing: Callable[[Fault], Probing],
    monkeypatch: pytest.MonkeyPatch,
    is_flushed: bool,
) -> None:
    """Also one that ended without a chance to write what it had in memory."""
    monkeypatch.setattr(probe_journal, "SECONDS_PER_FRAGMENT", 0.0)
    is_first_run = True

    def fault(name: str, attempt: int) -> VideoInfo:
        if is_first_run and name == "v6":
            if not is_flushed:
                monkeypatch.setattr(probe_journal.ProbeJournal, "flush", lambda self: None)
            raise Killed
        if name == "v1":
            raise VideoError(QuarantineReason.TIMED_OUT, "v1: nothing")
        if name == "v2":
            raise VideoError(QuarantineReason.TRUNCATED, "v2: half")
        return INFO

    process = probing(fault)
    job = job_of(many(tmp_path, 10), store)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(probe_journal.ProbeJournal, "flush", probe_journal.ProbeJournal.flush)
        prepare(job)
    assert read_parts(job.folder, PROBED)[0].num_rows == 6
    is_first_run = False
    assert prepare(job) == {"videos": 8, "quarantined": 2}
    # Videos that can be used were not looked into again.
    assert process.asked == {
        "v1": 4,
        "v2": 2,
        "v6": 2,
        **{f"v{n}": 1 for n in (0, 3, 4, 5, 7, 8, 9)},
    }
    rows = {row["video_id"]: row for row in read_parts(job.folder, QUARANTINE)[0].to_pylist()}
    assert {name: row["attempts"] for name, row in rows.items()} == {"v1": 4, "v2": 1}
    # The tables are those of an undisturbed run, and nothing else is left.
    assert not job.folder.store.list_files(job.folder.table("probed"))
    videos = read_parts(job.folder, VIDEOS)[0]
    undisturbed = job_of(job.location, Store.open(str(tmp_path / "other")))
    prepare(undisturbed)
    assert videos.equals(read_parts(undisturbed.folder, VIDEOS)[0])


def test_files_that_were_mended_are_looked_into_again(
    tmp_path: Path, store: Store, probing: Callable[[Fault], Probing]
) -> None:
    """What is mended may leave the listing as it is: a permission, a byte in the file."""
    is_mended = False

    def fault(name: str, attempt: int) -> VideoInfo:
        if name in ("v0", "v1", "v2") and not (is_mended and name != "v2"):
            raise VideoError(QuarantineReason.PERMISSION_DENIED, f"{name} may not be read")
        return INFO

    process = probing(fault)
    job = job_of(many(tmp_path, 5), store)
    with pytest.raises(StageError, match="3 of 5 videos cannot be used"):
        prepare(job)
    is_mended = True
    assert prepare(job) == {"videos": 4, "quarantined": 1}
    assert process.asked == {"v0": 2, "v1": 2, "v2": 2, "v3": 1, "v4": 1}
    (row,) = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    assert (row["video_id"], row["attempts"]) == ("v2", 1)
    # Killed before the commit, when what was found out lies in the tables alone.
    assert prepare(job) == {"videos": 4, "quarantined": 1}
    assert process.asked == {"v0": 2, "v1": 2, "v2": 3, "v3": 1, "v4": 1}


def test_the_tables_do_not_depend_on_the_order_in_which_rows_come(
    tmp_path: Path,
    store: Store,
    probing: Callable[[Fault], Probing],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probing(lambda name, attempt: INFO)
    job = job_of(many(tmp_path, 10), store)
    prepare(job)

    def backwards(rows: pa.Table, function: Callable[[Any], Any], *, ordered: bool) -> Any:
        assert not ordered
        return map(function, reversed(rows.to_pylist()))

    monkeypatch.setattr(prepare_job, "map_rows", backwards)
    other = job_of(job.location, Store.open(str(tmp_path / "other")))
    prepare(other)
    assert read_parts(other.folder, VIDEOS)[0].equals(read_parts(job.folder, VIDEOS)[0])


def test_few_copies_of_the_rows_are_in_memory(
    tmp_path: Path,
    store: Store,
    probing: Callable[[Fault], Probing],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Almost five times VIDEOS were; three are the listing, all rows, and those to be written."""
    probing(lambda name, attempt: INFO)
    job = job_of(manifest_of(tmp_path, [2.0] * 3_000, b"no video"), store)
    begun = pa.total_allocated_bytes()
    shares: list[float] = []

    def write(folder: StageFolder, table: Table, rows: pa.Table, *, contract: Contract) -> None:
        if table is VIDEOS:
            shares.append((pa.total_allocated_bytes() - begun) / rows.nbytes)

    monkeypatch.setattr(prepare_job, "write_table", write)
    prepare(job)
    assert shares[0] < 3.5


def test_fingerprints_see_both_ends_of_a_file_and_its_size(
    tmp_path: Path, store: Store, probing: Callable[[Fault], Probing]
) -> None:
    probing(lambda name, attempt: INFO)
    data = bytes(300_000)
    contents = [data, b"1" + data[1:], data[:-1] + b"1", data + b"\0", data]
    (tmp_path / "in").mkdir()
    for number, content in enumerate(contents):
        (tmp_path / "in" / f"v{number}.mp4").write_bytes(content)
    job = job_of(DataLocation((str(tmp_path / "in"),)), store)
    prepare(job)
    found = read_parts(job.folder, VIDEOS)[0]["fingerprint"].to_pylist()
    assert len(set(found[:4])) == 4 and found[4] == found[0]


def test_a_file_that_vanishes_is_a_fault_of_the_storage(
    tmp_path: Path, store: Store, probing: Callable[[Fault], Probing]
) -> None:
    def fault(name: str, attempt: int) -> VideoInfo:
        if name == "v0":
            (tmp_path / "in" / "v0.mp4").unlink(missing_ok=True)
        return INFO

    probing(fault)
    job = job_of(many(tmp_path, 3), store)
    assert prepare(job) == {"videos": 2, "quarantined": 1}
    (row,) = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    assert (row["video_id"], row["reason"], row["attempts"]) == ("v0", "storage_error", 2)


def test_recoverable_damage_passes_where_it_is_asked_for(
    tmp_path: Path, store: Store, probing: Callable[[Fault], Probing]
) -> None:
    def fault(name: str, attempt: int) -> VideoInfo:
        if name == "v0":
            raise VideoError(QuarantineReason.BAD_TIMESTAMPS, "v0: none")
        if name == "v1":
            raise VideoError(QuarantineReason.EMPTY_FILE, "v1: no bytes")
        return INFO

    probing(fault)
    job = job_of(many(tmp_path, 4), store, salvage=True)
    assert prepare(job) == {"videos": 3, "quarantined": 1}
    row, *_ = read_parts(job.folder, VIDEOS)[0].to_pylist()
    assert (row["video_id"], row["size_bytes"], row["width"]) == ("v0", 1, 0)
    assert row["fingerprint"]


CHILD = """
import os, sys, time, av
whole = av.open
def faulty(file, *arguments, **options):
    name = os.path.basename(getattr(file, "name", str(file)))
    if name.startswith("hang"): time.sleep(3600)
    if name.startswith("crash"): os.abort()
    return whole(file, *arguments, **options)
av.open = faulty
from tfn_platform.decode_child import main
main()
"""


@pytest.fixture
def own_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A decoding process that knows this test's environment."""
    with DecodeProcess() as process:
        monkeypatch.setattr(prepare_job, "_decode_process", lambda stall_seconds: process)
        yield


@pytest.fixture
def faulty_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real decoding process whose reader hangs and crashes on files of such names."""
    with DecodeProcess(stall_seconds=3, command=[sys.executable, "-c", CHILD]) as process:
        monkeypatch.setattr(prepare_job, "_decode_process", lambda stall_seconds: process)
        yield


def test_a_file_that_hangs_or_crashes_its_reader_costs_itself(
    video: bytes, tmp_path: Path, store: Store, faulty_child: None
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "crash", "d", "hang", "z"):
        (tmp_path / "in" / f"{name}.mp4").write_bytes(video)
    job = job_of(DataLocation((str(tmp_path / "in"),), max_quarantined_share=0.5), store)
    assert prepare(replace(job, max_attempts=1)) == {"videos": 3, "quarantined": 2}
    rows = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    assert {row["video_id"]: row["reason"] for row in rows} == {
        "crash": "decoder_crashed",
        "hang": "timed_out",
    }


def test_in_an_object_store(video: bytes, s3_root: str, own_child: None) -> None:
    store = Store.open(s3_root)
    for name in ("videos/a b.mp4", "videos/c.mp4"):
        store.write_bytes(name, video)
    store.write_bytes("videos/d.mp4", b"")
    job = job_of(DataLocation((f"{s3_root}/videos",), max_quarantined_share=0.4), store)
    assert prepare(job) == {"videos": 2, "quarantined": 1}
    rows = read_parts(job.folder, VIDEOS)[0].to_pylist()
    assert [(row["video_id"], row["uri"]) for row in rows] == [
        ("a b", f"{s3_root}/videos/a%20b.mp4"),
        ("c", f"{s3_root}/videos/c.mp4"),
    ]
    assert {row["size_bytes"] for row in rows} == {len(video)}
    assert not store.list_files(job.folder.table("probed"))


@pytest.mark.usefixtures("ray_session")
def test_in_rays_tasks(
    video: bytes, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_job, "map_rows", map_rows)
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"v{number}.mp4").write_bytes(video if number % 3 else b"")
    job = job_of(DataLocation((str(tmp_path / "in"),), max_quarantined_share=0.5), store)
    assert prepare(job) == {"videos": 4, "quarantined": 2}
    rows = read_parts(job.folder, VIDEOS)[0].to_pylist()
    assert [row["video_id"] for row in rows] == ["v1", "v2", "v4", "v5"]
    assert all(row["duration_seconds"] > 1.9 and row["fingerprint"] for row in rows)
