"""Parts of a remote store in a local cache: fetched once, by whoever is first."""

import fcntl
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
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
    read_in_a_process,
    requests,
    shuffled,
    wait_until,
)
from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import random_videos, write_parts
from tfn_platform import cached_files
from tfn_platform.feature_cache import AHEAD_FILE, IN_USE_FILE, FeatureCache, locked
from tfn_platform.feature_fetch import PartFetch
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_table import feature_part
from tfn_platform.store import StageFolder, Store

__all__ = ["folder", "requests", "s3_endpoint", "s3_root"]


@pytest.mark.parametrize("ahead", [False, True])
def test_any_order_fetches_each_part_once(
    folder: StageFolder, tmp_path: Path, requests: Requests, ahead: bool
) -> None:
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=2**30))
    for epoch in range(3):
        names = shuffled(epoch)
        if ahead:
            reader.prefetch(names)
        assert_epoch(reader, names)
        if ahead:
            wait_until(lambda: parts_in(tmp_path / "cache") == NUM_PARTS)
    assert requests.fetches == {feature_part(folder, part): 1 for part in range(NUM_PARTS)}
    assert ahead or not requests.ranges
    num_ranges = requests.ranges.total()
    again = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=2**30))
    assert_epoch(again, shuffled(3))
    assert requests.fetches.total() == NUM_PARTS and requests.ranges.total() == num_ranges


def test_parts_are_fetched_in_the_order_of_the_epoch(
    folder: StageFolder, tmp_path: Path, requests: Requests
) -> None:
    cache = FeatureCache(tmp_path, max_bytes=2**30, num_threads=1)
    reader = FeatureReader(folder, cache=cache)
    reader.prefetch(["v20", "v01", "v21", "v31", "v11"])
    wait_until(lambda: parts_in(tmp_path) == NUM_PARTS)
    assert list(requests.fetches) == [feature_part(folder, part) for part in (2, 0, 3, 1)]


def test_threads_and_processes_share_what_one_fetches(
    folder: StageFolder, tmp_path: Path, requests: Requests
) -> None:
    cache = FeatureCache(tmp_path, max_bytes=2**30)
    readers = [FeatureReader(folder, cache=cache) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: assert_epoch(readers[n % 2], shuffled(n)), range(8)))
    assert requests.fetches == {feature_part(folder, part): 1 for part in range(NUM_PARTS)}
    assert not requests.ranges


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


def test_features_made_anew_are_fetched_anew(folder: StageFolder, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_bytes=2**30)
    assert_epoch(FeatureReader(folder, cache=cache), NAMES[0])
    other = random_videos(CONTRACT, seed=9, **dict.fromkeys(NAMES[0], 10))
    write_parts(folder.store, [other], contract=CONTRACT)
    np.testing.assert_array_equal(FeatureReader(folder, cache=cache).read("v02"), other[2].values)


def test_a_local_store_is_read_where_it_lies(tmp_path: Path) -> None:
    folder = write_parts(Store.open(str(tmp_path / "store")), PARTS, contract=CONTRACT)
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path / "cache", max_bytes=1))
    reader.prefetch(shuffled(0))
    assert_epoch(reader, shuffled(0))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_all_threads_together_hold_one_requests_memory(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_threads: int
) -> None:
    """Each thread held a request of full size."""
    monkeypatch.setattr(cached_files, "REQUEST_BYTES", 9000)
    helped: list[int] = []
    fetch = PartFetch._fetch

    def noting(self: PartFetch, run: Any, buffer: memoryview) -> bool:
        helped.append(len(buffer))
        return fetch(self, run, buffer)

    monkeypatch.setattr(PartFetch, "_fetch", noting)
    cache = FeatureCache(tmp_path, max_bytes=2**30, num_threads=num_threads)
    reader = FeatureReader(folder, cache=cache)
    assert_epoch(reader, NAMES[0])
    assert set(helped) == {9000} and len(helped) > 1
    helped.clear()
    reader.prefetch([name for names in NAMES[1:] for name in names])
    wait_until(lambda: parts_in(tmp_path) == NUM_PARTS)
    assert set(helped) == {9000 // num_threads}


class _Slow:
    """Requests that can be held up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go = threading.Event()
        self.process = os.getpid()
        self.begun: set[int] = set()
        fetch = PartFetch._fetch

        def held_up(this: PartFetch, run: Any, buffer: memoryview) -> bool:
            self.begun.add(run.begin)
            is_ours = os.getpid() == self.process
            assert run.begin == 0 or not is_ours or self.may_go.wait(60)
            return fetch(this, run, buffer)

        monkeypatch.setattr(PartFetch, "_fetch", held_up)


def test_videos_are_read_before_their_part_is_whole(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: Requests
) -> None:
    """The first video waited for the last of its part."""
    monkeypatch.setattr(cached_files, "REQUEST_BYTES", part_bytes(folder) + 2000)
    slow = _Slow(monkeypatch)
    reader = FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30, num_threads=2))
    reader.prefetch(NAMES[0])
    wait_until(lambda: len(slow.begun) == 2)
    fetch = files_of(reader)._ahead.fetch_of(feature_part(folder, 0))
    assert fetch is not None
    wait_until(lambda: fetch._checked)
    assert_epoch(reader, NAMES[0][:2])
    assert not requests.ranges and not parts_in(tmp_path)
    assert_epoch(reader, NAMES[0][3:])
    assert requests.ranges == {feature_part(folder, 0): 2}
    slow.may_go.set()
    wait_until(lambda: parts_in(tmp_path) == 1)
    assert_epoch(reader, NAMES[0])
    assert requests.ranges.total() == 2 and requests.fetches.total() == 1


def test_nobody_waits_for_a_part_further_down(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: Requests
) -> None:
    """A reader that ran ahead of the fetching waited for whole parts."""
    monkeypatch.setattr(cached_files, "REQUEST_BYTES", part_bytes(folder) // 2)
    slow = _Slow(monkeypatch)
    cache = FeatureCache(tmp_path, max_bytes=2**30, num_threads=1)
    reader = FeatureReader(folder, cache=cache)
    reader.prefetch([*NAMES[0], *NAMES[1]])
    wait_until(lambda: len(slow.begun) == 2)
    assert_epoch(reader, NAMES[1])
    assert requests.ranges == {feature_part(folder, 1): VIDEOS_PER_PART}
    assert requests.fetches == {feature_part(folder, 0): 1}
    slow.may_go.set()
    wait_until(lambda: parts_in(tmp_path) == 2)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_does_not_wait_for_what_is_fetched_ahead(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A DataLoader's workers fetched, or waited for, the parts that their parent was fetching."""
    slow = _Slow(monkeypatch)
    monkeypatch.setattr(cached_files, "REQUEST_BYTES", part_bytes(folder) // 2)
    cache = FeatureCache(tmp_path, max_bytes=2**30, num_threads=1)
    reader = FeatureReader(folder, cache=cache)
    reader.prefetch([*NAMES[0], *NAMES[1]])
    wait_until(lambda: len(slow.begun) == 2)
    names = [*NAMES[0], *NAMES[2]]
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.apply_async(read_in_a_process, (reader, names)).get(timeout=60)
        for name, values in zip(names, found, strict=True):
            np.testing.assert_array_equal(values, VALUES[name])
        assert not parts_in(tmp_path)
        slow.may_go.set()
        wait_until(lambda: not files_of(reader)._ahead.is_running)
        # Nobody fetches ahead any more, and whoever needs a part fetches it.
        pool.apply_async(read_in_a_process, (reader, NAMES[2])).get(timeout=60)
    assert parts_in(tmp_path) == 3


def test_those_who_ask_whether_parts_will_come_are_not_taken_for_fetching(
    folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def slowly_locked(path: Path, **options: Any) -> Iterator[None]:
        with locked(path, **options):
            time.sleep(0.05 if path.name == AHEAD_FILE else 0)
            yield

    files = files_of(FeatureReader(folder, cache=FeatureCache(tmp_path, max_bytes=2**30)))
    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(cached_files, "locked", slowly_locked)
        assert not any(pool.map(lambda _: files._is_expected("part"), range(8)))
    (in_use,) = tmp_path.rglob(IN_USE_FILE)
    with locked(in_use.with_name(AHEAD_FILE), mode=fcntl.LOCK_SH):
        assert files._is_expected("part")
