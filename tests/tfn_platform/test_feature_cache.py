"""Parts of a remote store in a local cache: fetched once, by whoever is first."""

import errno
import fcntl
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import feature_contract, random_videos, write_parts
from tfn_platform import feature_cache
from tfn_platform.errors import TableError
from tfn_platform.feature_cache import IN_USE_FILE, FeatureCache
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_table import feature_part
from tfn_platform.ranged_files import RangedFiles
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store

__all__ = ["s3_endpoint", "s3_root"]

CONTRACT = feature_contract(feature_dim=64)
NUM_PARTS, VIDEOS_PER_PART = 4, 5
NAMES = [[f"v{part}{number}" for number in range(VIDEOS_PER_PART)] for part in range(NUM_PARTS)]
PARTS = [
    random_videos(CONTRACT, seed=part, **dict.fromkeys(names, 10))
    for part, names in enumerate(NAMES)
]
VALUES = {video.video_id: video.values for part in PARTS for video in part}


@pytest.fixture
def folder(s3_root: str) -> StageFolder:
    return write_parts(Store.open(s3_root), PARTS, contract=CONTRACT)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> "Counter[str]":
    """How many requests each remote file takes."""
    counts: Counter[str] = Counter()
    read, copy = RangedFiles.read_into, RangedFiles.copy_to

    def counting_read(self: RangedFiles, relative: str, *arguments: Any, **options: Any) -> None:
        if not self.is_local:
            counts[relative] += 1
        read(self, relative, *arguments, **options)

    def counting_copy(self: RangedFiles, relative: str, *arguments: Any, **options: Any) -> None:
        counts[relative] += -(-self.num_bytes(relative) // options["request_bytes"])
        copy(self, relative, *arguments, **options)

    monkeypatch.setattr(RangedFiles, "read_into", counting_read)
    monkeypatch.setattr(RangedFiles, "copy_to", counting_copy)
    return counts


def shuffled(seed: int) -> list[str]:
    return [str(name) for name in np.random.default_rng(seed).permutation(list(VALUES))]


def part_bytes(folder: StageFolder) -> int:
    store, relative = folder.store, feature_part(folder, 0)
    return len(store.read_bytes(relative))


def read_in_a_process(reader: FeatureReader, names: list[str]) -> list[Any]:
    return [reader.read(name) for name in names]


def assert_epoch(reader: FeatureReader, names: list[str]) -> None:
    for name in names:
        np.testing.assert_array_equal(reader.read(name), VALUES[name])


@pytest.mark.parametrize("ahead", [False, True])
def test_any_order_fetches_each_part_once(
    folder: StageFolder, tmp_path: Path, requests: "Counter[str]", ahead: bool
) -> None:
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=2**30))
    for epoch in range(3):
        names = shuffled(epoch)
        if ahead:
            reader.prefetch(names)
        assert_epoch(reader, names)
    assert requests == {feature_part(folder, part): 1 for part in range(NUM_PARTS)}
    again = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=2**30))
    assert_epoch(again, shuffled(3))
    assert requests.total() == NUM_PARTS


def test_parts_are_fetched_in_the_order_of_the_epoch(
    folder: StageFolder, tmp_path: Path, requests: "Counter[str]"
) -> None:
    cache = FeatureCache(tmp_path, max_bytes=2**30, num_threads=1)
    reader = FeatureReader(folder, cache=cache)
    reader.prefetch(["v20", "v01", "v21", "v31", "v11"])
    deadline = time.monotonic() + 30
    while len(list(tmp_path.rglob("*.parquet"))) < NUM_PARTS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(requests) == [feature_part(folder, part) for part in (2, 0, 3, 1)]


def test_a_large_part_comes_in_pieces(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: "Counter[str]"
) -> None:
    monkeypatch.setattr(feature_cache, "REQUEST_BYTES", part_bytes(folder) // 3)
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    assert_epoch(reader, NAMES[0])
    assert requests == {feature_part(folder, 0): 4}
    (cached,) = tmp_path.rglob("*.parquet")
    assert cached.read_bytes() == folder.store.read_bytes(feature_part(folder, 0))


def test_threads_and_processes_share_what_one_fetches(
    folder: StageFolder, tmp_path: Path, requests: "Counter[str]"
) -> None:
    cache = FeatureCache(tmp_path, max_bytes=2**30)
    readers = [FeatureReader(folder, cache=cache) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: assert_epoch(readers[n % 2], shuffled(n)), range(8)))
    assert requests == {feature_part(folder, part): 1 for part in range(NUM_PARTS)}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_wait_for_one_another(folder: StageFolder, tmp_path: Path, method: str) -> None:
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    reader.prefetch(NAMES[0])
    orders = [shuffled(seed) for seed in range(4)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        tasks = [pool.apply_async(read_in_a_process, (reader, names)) for names in orders]
        for task, names in zip(tasks, orders, strict=True):
            for name, values in zip(names, task.get(timeout=60), strict=True):
                np.testing.assert_array_equal(values, VALUES[name])
    assert not list(tmp_path.rglob("*.partial"))


def test_parts_without_room_are_read_remotely(
    folder: StageFolder, tmp_path: Path, requests: "Counter[str]"
) -> None:
    """Two of four parts fit: they stay, though others are asked for in between."""
    size = part_bytes(folder)
    cache = FeatureCache(tmp_path, max_bytes=int(2.5 * size))
    reader = FeatureReader(folder, cache=cache)
    in_order = [name for names in NAMES for name in names]
    for _ in range(3):
        assert_epoch(reader, in_order)
    assert cache.used_bytes() <= cache.max_bytes
    per_part = [requests[feature_part(folder, part)] for part in range(NUM_PARTS)]
    assert per_part == [1, 1, 3 * VIDEOS_PER_PART, 3 * VIDEOS_PER_PART]


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


def test_features_made_anew_are_fetched_anew(folder: StageFolder, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_bytes=2**30)
    assert_epoch(FeatureReader(folder, cache=cache), NAMES[0])
    other = random_videos(CONTRACT, seed=9, **dict.fromkeys(NAMES[0], 10))
    write_parts(folder.store, [other], contract=CONTRACT)
    np.testing.assert_array_equal(FeatureReader(folder, cache=cache).read("v02"), other[2].values)


def test_what_a_killed_process_left_is_taken_over(folder: StageFolder, tmp_path: Path) -> None:
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    (in_use,) = tmp_path.rglob(IN_USE_FILE)
    partial = in_use.parent / f"{feature_part(folder, 0)}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    assert_epoch(reader, NAMES[0])
    assert not partial.exists()


def test_a_local_store_is_read_where_it_lies(tmp_path: Path) -> None:
    folder = write_parts(Store.open(str(tmp_path / "store")), PARTS, contract=CONTRACT)
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=1))
    reader.prefetch(shuffled(0))
    assert_epoch(reader, shuffled(0))
    assert not (tmp_path / "cache").exists()


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
import tfn_platform.feature_cache as feature_cache
feature_cache.REQUEST_BYTES = 16
reader = pickle.load(open({str(tmp_path / "reader")!r}, "rb"))
reader.prefetch({shuffled(0)!r})
time.sleep(0.2)
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 30
    assert threading.active_count() < 20


@pytest.mark.parametrize("name", ["max_bytes", "num_threads"])
def test_numbers_below_one_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        FeatureCache(tmp_path, **{"max_bytes": 1, name: 0})


def test_a_damaged_part_does_not_enter_the_cache(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros in the place of what was not written stayed there for all later epochs."""
    copy = RangedFiles.copy_to

    def damaged(self: RangedFiles, relative: str, target: Any, **options: Any) -> None:
        copy(self, relative, target, **options)
        target.seek(part_bytes(folder) // 2)
        target.write(bytes(64))

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    with monkeypatch.context() as patch:
        patch.setattr(RangedFiles, "copy_to", damaged)
        with pytest.raises(TableError, match=r"part-00000.parquet: the features of video 'v0\d'"):
            reader.read("v00")
    assert not [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.partial")]
    assert_epoch(reader, NAMES[0])


@pytest.mark.parametrize("place", ["_reserve", "copy_to"])
def test_a_full_disk_is_no_room(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It was said of the part in the store that it could not be read."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache if place == "_reserve" else RangedFiles, place, full)
        assert_epoch(reader, NAMES[0])
    assert not [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.partial")]


def test_another_error_of_the_disk_is_said(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30))
    monkeypatch.setattr(feature_cache, "_reserve", broken)
    with pytest.raises(TableError, match="cannot be kept in the cache: .*input/output error"):
        reader.read("v00")


def test_the_room_of_a_part_is_taken_before_it_is_fetched(tmp_path: Path) -> None:
    """A file with holes finds out that the disk is full when it is too late."""
    with (tmp_path / "part").open("wb") as stream:
        feature_cache._reserve(stream.fileno(), 2**20)
        status = os.fstat(stream.fileno())
    assert status.st_size == 2**20 <= 512 * status.st_blocks


def test_the_next_epoch_tries_again_what_found_no_room(
    folder: StageFolder, tmp_path: Path, requests: "Counter[str]"
) -> None:
    other = tmp_path / "other" / "part"
    other.parent.mkdir()
    other.write_bytes(bytes(100))
    cache = FeatureCache(tmp_path, max_bytes=part_bytes(folder) + 50)
    reader = FeatureReader(folder, cache=cache)
    assert_epoch(reader, NAMES[0])
    other.unlink()
    assert_epoch(reader, NAMES[0])
    assert requests == {feature_part(folder, 0): 2 * VIDEOS_PER_PART}
    reader.prefetch(NAMES[0])
    assert_epoch(reader, NAMES[0])
    assert requests == {feature_part(folder, 0): 2 * VIDEOS_PER_PART + 1}


def test_files_that_go_while_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that gave up its part ended the count with FileNotFoundError."""
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for name in ("gone", "deep/stays", "stays"):
        (tmp_path / "set" / name).write_bytes(bytes(10))
    scan = os.scandir

    def losing(folder: Any) -> Any:
        entries = sorted(scan(folder), key=lambda entry: entry.name)
        if Path(folder).name == "set":
            (tmp_path / "set" / "gone").unlink()
        return nullcontext(entries)

    cache = FeatureCache(tmp_path, max_bytes=100)
    assert cache.used_bytes() == 30
    monkeypatch.setattr(os, "scandir", losing)
    assert cache.used_bytes() == 20


def test_each_file_is_looked_at_once_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files were counted again for each data set that was thrown out."""
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / IN_USE_FILE).touch()
        (tmp_path / str(number) / "part").write_bytes(bytes(10))
    listed: Counter[str] = Counter()
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda name: (listed.update([str(name)]), scan(name))[1])
    cache = FeatureCache(tmp_path, max_bytes=50)
    with cache.locked():
        assert cache.make_room(25)
    assert listed[str(tmp_path / "3")] == listed[str(tmp_path / "4")] == 1
    monkeypatch.undo()
    assert cache.used_bytes() == 20


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


@pytest.mark.parametrize("data", [b"", b"PAR1", bytes(1000)])
def test_what_is_no_part_is_a_table_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "part").write_bytes(data)
    with pytest.raises(TableError, match="remote/part: "):
        feature_cache._check_part(tmp_path / "part", source="remote/part")
