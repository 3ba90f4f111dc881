"""What goes wrong on the way into a cache: no room, damage, errors, and processes that die."""

import errno
import fcntl
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cached_parts import (
    CONTRACT,
    NAMES,
    NUM_PARTS,
    PARTS,
    VALUES,
    VIDEOS_PER_PART,
    Requests,
    assert_epoch,
    files_of,
    folder,
    part_bytes,
    parts_in,
    requests,
    shuffled,
    wait_until,
)
from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import write_parts
from tfn_platform import feature_fetch
from tfn_platform.errors import TableError
from tfn_platform.feature_cache import IN_USE_FILE, FeatureCache
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_table import feature_part
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store

__all__ = ["folder", "requests", "s3_endpoint", "s3_root"]


def test_what_a_killed_process_left_is_taken_over(folder: StageFolder, tmp_path: Path) -> None:
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    (in_use,) = tmp_path.rglob(IN_USE_FILE)
    partial = in_use.parent / f"{feature_part(folder, 0)}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    assert_epoch(reader, NAMES[0])
    assert not partial.exists()


def test_a_process_killed_while_it_fetches_leaves_nothing_wrong(
    folder: StageFolder, tmp_path: Path
) -> None:
    """Some of its runs are written, its locks are gone, and the next one begins anew."""
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=2**30))
    (tmp_path / "reader").write_bytes(pickle.dumps(reader))
    program = f"""
import os, pickle, time
from tfn_platform import cached_files, feature_fetch
cached_files.REQUEST_BYTES = 16000
write = os.pwrite
def slow(descriptor, piece, offset):
    time.sleep(0.1 if offset == 0 else 600)
    return write(descriptor, piece, offset)
os.pwrite = slow
reader = pickle.load(open({str(tmp_path / "reader")!r}, "rb"))
reader.prefetch({NAMES[0] + NAMES[1]!r})
while not any(fetch._checked for fetch in list(reader._files._ahead._fetches.values())):
    time.sleep(0.01)
print("begun", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        assert list((tmp_path / "cache").rglob("*.partial"))
        # It says that it fetches ahead: nobody waits for it, nor fetches in its place.
        assert_epoch(reader, NAMES[0] + NAMES[3])
        assert not parts_in(tmp_path)
        process.kill()
        process.wait()
    assert_epoch(reader, NAMES[0] + NAMES[1])
    assert parts_in(tmp_path) == 2 and not list((tmp_path / "cache").rglob("*.partial"))


def test_a_part_that_is_gone_is_said_when_it_is_read(folder: StageFolder, tmp_path: Path) -> None:
    folder.store.delete_file(feature_part(folder, 1))
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    reader.prefetch(["v10", "v20"])
    assert_epoch(reader, NAMES[2])
    with pytest.raises(TableError, match="part-00001.parquet: cannot be read"):
        reader.read("v10")


def test_a_program_may_end_while_parts_are_fetched(folder: StageFolder, tmp_path: Path) -> None:
    """It waited for everything in the queue, or died at exit with the signal of a crash."""
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    (tmp_path / "reader").write_bytes(pickle.dumps(reader))
    program = f"""
import pickle, time
import tfn_platform.cached_files as cached_files
cached_files.REQUEST_BYTES = 16
reader = pickle.load(open({str(tmp_path / "reader")!r}, "rb"))
reader.prefetch({shuffled(0)!r})
time.sleep(0.2)
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 30
    assert threading.active_count() < 20


def test_a_damaged_part_does_not_enter_the_cache(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros in the place of what was not written stayed there for all later epochs."""
    write, clip = os.pwrite, VALUES["v03"][4].tobytes()

    def damaging(descriptor: int, piece: memoryview, offset: int) -> int:
        return write(descriptor, bytes(piece).replace(clip, bytes(len(clip))), offset)

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", damaging)
        with pytest.raises(TableError, match=r"part-00000.parquet: the features of video 'v0\d'"):
            reader.read("v00")
    assert not [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.partial")]
    assert_epoch(reader, NAMES[0])


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("place", ["fallocate", "write"])
def test_a_full_disk_is_no_room(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, ahead: bool
) -> None:
    """It was said of the part in the store that it could not be read."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate" if place == "fallocate" else "pwrite", full)
        if ahead:
            reader.prefetch(NAMES[0])
            wait_until(lambda: not files_of(reader)._ahead.is_running)
        assert_epoch(reader, NAMES[0])
    assert not [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.partial")]


def test_another_error_of_the_disk_is_said(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    monkeypatch.setattr(feature_fetch, "reserve", broken)
    with pytest.raises(TableError, match="cannot be kept in the cache: .*input/output error"):
        reader.read("v00")


def test_the_next_epoch_tries_again_what_found_no_room(
    folder: StageFolder, tmp_path: Path, requests: Requests
) -> None:
    other = tmp_path / "other" / "part"
    other.parent.mkdir()
    other.write_bytes(bytes(100))
    cache = FeatureCache(tmp_path, max_bytes=part_bytes(folder) + 50)
    reader = FeatureReader(folder, cache=cache)
    assert_epoch(reader, NAMES[0])
    other.unlink()
    assert_epoch(reader, NAMES[0])
    assert requests.ranges == {feature_part(folder, 0): 2 * VIDEOS_PER_PART}
    reader.prefetch(NAMES[0])
    wait_until(lambda: parts_in(tmp_path) == 1)
    assert_epoch(reader, NAMES[0])
    assert requests.ranges == {feature_part(folder, 0): 2 * VIDEOS_PER_PART}


def test_parts_without_room_are_read_remotely(
    folder: StageFolder, tmp_path: Path, requests: Requests
) -> None:
    """Two of four parts fit: they stay, though others are asked for in between."""
    size = part_bytes(folder)
    cache = FeatureCache(tmp_path, max_bytes=int(2.5 * size))
    reader = FeatureReader(folder, cache=cache)
    in_order = [name for names in NAMES for name in names]
    for _ in range(3):
        assert_epoch(reader, in_order)
    assert cache.used_bytes() <= cache.max_bytes
    per_part = [requests.ranges[feature_part(folder, part)] for part in range(NUM_PARTS)]
    assert per_part == [0, 0, 3 * VIDEOS_PER_PART, 3 * VIDEOS_PER_PART]
    assert requests.fetches == {feature_part(folder, part): 1 for part in range(2)}


def test_a_part_that_fails_ahead_is_fetched_by_who_reads_it(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: Requests
) -> None:
    """The reader is told what is wrong, or has the part if nothing is wrong any more."""
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda _, piece, __: len(piece))
        reader.prefetch(NAMES[0])
        wait_until(lambda: not files_of(reader)._ahead.is_running)
        assert not [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.partial")]
        with pytest.raises(TableError, match="part-00000.parquet: cannot be read as Parquet"):
            reader.read("v00")
    assert_epoch(reader, NAMES[0])
    assert parts_in(tmp_path) == 1 and not requests.ranges


def test_a_data_set_not_in_use_makes_room(s3_root: str, tmp_path: Path) -> None:
    """The one unused for longest goes first; one that a reader still holds stays."""
    store = Store.open(s3_root)
    folders = [
        write_parts(store, [PARTS[n]], contract=CONTRACT, stage=Stage(f"extract/{n}", {}))
        for n in range(4)
    ]
    cache = FeatureCache(tmp_path, max_bytes=int(3.5 * part_bytes(folders[0])))
    readers: list[FeatureReader | None] = []
    for number in range(3):
        reader = FeatureReader(folders[number], cache=cache)
        assert_epoch(reader, NAMES[number])
        readers.append(reader)
    held = readers[0]
    readers.clear()
    reader = None
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    last = FeatureReader(folders[3], cache=cache)
    assert_epoch(last, NAMES[3])
    kept = {path.name for path in tmp_path.rglob("extract")}
    assert kept == {"extract"}
    cached = sorted(
        str(path.relative_to(tmp_path)).split("/")[3] for path in tmp_path.rglob("*.parquet")
    )
    assert cached == ["0", "2", "3"]
    assert held is not None
    assert_epoch(held, NAMES[0])


def test_a_part_takes_its_name_under_the_lock(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part renamed while another process counted was counted not at all."""
    rename, locked = Path.rename, []

    def noting(self: Path, target: Path) -> Path:
        with (tmp_path / ".lock").open("ab") as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(target.name)
        return rename(self, target)

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    monkeypatch.setattr(Path, "rename", noting)
    assert_epoch(reader, NAMES[0])
    assert locked == ["part-00000.parquet"]
