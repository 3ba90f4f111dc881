"""Ranges of files: from threads, in forked processes, with few files open, and what is cut off."""

import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.s3_server import s3_endpoint, s3_root
from tfn_platform import ranged_files
from tfn_platform.errors import TableError
from tfn_platform.ranged_files import ForkGate, RangedFiles, RemoteFile
from tfn_platform.store import Store

__all__ = ["s3_endpoint", "s3_root"]

SIZE = 1000


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Ten files of their own bytes."""
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_root")
    store = Store.open(root)
    for number in range(10):
        store.write_bytes(f"file{number}", content(number))
    return store


def content(number: int) -> bytes:
    return np.random.default_rng(number).bytes(SIZE)


def read(files: RangedFiles, number: int, *, offset: int = 300, length: int = 200) -> bytes:
    target = bytearray(length)
    files.read_into(f"file{number}", memoryview(target), offset=offset)
    return bytes(target)


def send_what_is_read(files: RangedFiles, connection: Connection) -> None:
    connection.send(read(files, 3))


def test_threads_read_through_few_open_files(store: Store) -> None:
    files = RangedFiles(store, max_open=2)
    numbers = [number % 10 for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: read(files, number), numbers))
    assert found == [content(number)[300:500] for number in numbers]
    assert files.num_bytes("file0") == SIZE
    assert files.is_local == store.is_local


def test_a_file_is_opened_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ranged_files.LocalFile if store.is_local else ranged_files.RemoteFile
    opened = []
    make = kind.__init__
    monkeypatch.setattr(
        kind, "__init__", lambda self, *a: (opened.append(a[-1]), make(self, *a))[1]
    )
    files = RangedFiles(store, max_open=2)
    for number in (0, 1, 0, 1, 0, 2, 0, 1):
        assert read(files, number) == content(number)[300:500]
    assert [Path(name).name for name in opened] == ["file0", "file1", "file2", "file1"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_opens_its_own(store: Store, method: str) -> None:
    """A connection that two processes talk through gives each the other's bytes, or nothing."""
    files = RangedFiles(store)
    assert read(files, 3) == content(3)[300:500]
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=send_what_is_read, args=(files, theirs))
    process.start()
    assert ours.poll(60), "the other process reads nothing"
    assert ours.recv() == content(3)[300:500]
    process.join()
    assert read(files, 3, offset=0) == content(3)[:200]


def test_it_travels_without_open_files(store: Store) -> None:
    files = RangedFiles(store, max_open=3)
    read(files, 0)
    copy = pickle.loads(pickle.dumps(files))
    assert len(pickle.dumps(files)) < 500
    assert read(copy, 0) == read(files, 0)


def test_what_is_not_there_is_refused(store: Store) -> None:
    files = RangedFiles(store)
    with pytest.raises(TableError, match="file1: must hold 200 bytes from byte 900 on, got 100"):
        read(files, 1, offset=900)
    with pytest.raises(TableError, match="gone: cannot be read"):
        files.read_into("gone", memoryview(bytearray(1)), offset=0)
    with pytest.raises(TableError, match="gone: cannot be read"):
        files.num_bytes("gone")
    with pytest.raises(ValueError, match="max_open must be at least 1, got 0"):
        RangedFiles(store, max_open=0)


def test_a_fork_waits_for_requests_that_run_and_for_no_others() -> None:
    """With requests in several threads, one of which always ran, a fork waited for the last."""
    gate = ForkGate()
    may_end, done, forked = threading.Event(), threading.Event(), threading.Event()

    def requests(number: int) -> None:
        while not done.is_set():
            with gate.request():
                assert may_end.wait(30) and not forked.is_set()
                time.sleep(0.002 + 0.001 * number)

    threads = [threading.Thread(target=requests, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    may_end.set()
    timer = threading.Timer(20, done.set)
    timer.start()
    for _ in range(5):
        begin = time.monotonic()
        gate.close()
        forked.set()
        assert gate._running == 0 and time.monotonic() - begin < 5
        time.sleep(0.02)
        forked.clear()
        gate.open()
    done.set()
    timer.cancel()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_remote_range_goes_straight_to_its_target(s3_root: str) -> None:
    """It was read into memory of its own first, which costs more than the copy out of it."""
    store = Store.open(s3_root)
    store.write_bytes("file0", content(0))
    file, target = RemoteFile(store, "file0"), bytearray(500)
    file._file = SimpleNamespace(get_stream=file._file.get_stream)
    assert file.read_into(memoryview(target), offset=300) == 500
    assert target == content(0)[300:800]
