"""One part on its way to a disk: cut into runs, checked as it comes, kept whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import STAGE, feature_contract, random_videos, write_parts
from tfn_platform import feature_fetch
from tfn_platform.errors import TableError
from tfn_platform.feature_cache import FeatureCache
from tfn_platform.feature_fetch import (
    PartFetch,
    Run,
    check_part,
    partial_path,
    plan_runs,
    request_buffer,
)
from tfn_platform.feature_footer import VideoExtent, video_extents
from tfn_platform.feature_table import feature_part
from tfn_platform.ranged_files import RangedFiles
from tfn_platform.store import Store

__all__ = ["s3_endpoint", "s3_root"]

CONTRACT = feature_contract("float16", feature_dim=64)
VIDEOS = random_videos(CONTRACT, **{f"v{n}": n for n in range(1, 31)})
RELATIVE = feature_part(STAGE.folder(Store("/")), 0)


@pytest.fixture
def store(s3_root: str) -> Store:
    store = Store.open(s3_root)
    write_parts(store, [VIDEOS], contract=CONTRACT)
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set" / "part"


def begin(store: Store, path: Path, *, run_bytes: int, wait: bool = True) -> PartFetch | None:
    cache = FeatureCache(path.parent.parent, max_bytes=2**30)
    return PartFetch.begin(
        RangedFiles(store), RELATIVE, path, cache=cache, run_bytes=run_bytes, wait=wait
    )


def began(store: Store, path: Path, *, run_bytes: int) -> PartFetch:
    fetch = begin(store, path, run_bytes=run_bytes)
    assert fetch is not None
    return fetch


@pytest.mark.parametrize("run_bytes", [1, 1000, 5000, 10**6])
@pytest.mark.parametrize("request_bytes", [700, 10**6])
@pytest.mark.parametrize("num_threads", [1, 4])
def test_a_part_arrives_as_it_is(
    store: Store, path: Path, run_bytes: int, request_bytes: int, num_threads: int
) -> None:
    fetch = began(store, path, run_bytes=run_bytes)
    num_runs = fetch.num_waiting
    assert num_runs == 1 if run_bytes == 10**6 else num_runs > 5

    def work(_: int) -> None:
        buffer = request_buffer(request_bytes)
        while fetch.help(buffer):
            assert not path.exists() or fetch.num_waiting == 0

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, range(num_threads)))
    assert path.read_bytes() == store.read_bytes(RELATIVE)
    assert fetch.is_over and not partial_path(path).exists()
    assert begin(store, path, run_bytes=1) is None


def test_what_has_come_is_checked_without_the_rest(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run by run: each video is readable once its run is there, and the file is not read again."""
    monkeypatch.setattr(feature_fetch, "check_part", None)
    data = store.read_bytes(RELATIVE)
    videos = video_extents(pq.ParquetFile(pa.BufferReader(data)), source="part")
    fetch, buffer = began(store, path, run_bytes=3000), request_buffer(500)

    def readable() -> list[bool]:
        found = []
        for video, written in zip(videos, VIDEOS, strict=True):
            target = np.zeros_like(written.values)
            view = target.reshape(-1).view(np.uint8).data
            found.append(fetch.read_into(view, offset=video.values_begin))
            assert (target == (written.values if found[-1] else 0)).all()
        return found

    counts = [sum(readable())]
    while fetch.help(buffer):
        found = readable()
        counts.append(sum(found))
        assert found == [True] * counts[-1] + [False] * (30 - counts[-1])
    assert counts[0] == 0 and counts[-1] == 30 and counts == sorted(set(counts))


@pytest.mark.parametrize("what", ["values", "centers", "footer"])
def test_damage_on_the_way_is_noticed(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    data = store.read_bytes(RELATIVE)
    video = video_extents(pq.ParquetFile(pa.BufferReader(data)), source="part")[17]
    where = {
        "values": video.values_begin + 5,
        "centers": video.centers_begin + 6,
        "footer": len(data) - 6,
    }[what]
    write = os.pwrite

    def damaging(descriptor: int, piece: memoryview, offset: int) -> int:
        damaged = bytearray(piece)
        if offset <= where < offset + len(piece):
            damaged[where - offset] ^= 1
        return write(descriptor, damaged, offset)

    fetch, buffer = began(store, path, run_bytes=3000), request_buffer(10**6)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", damaging)
        with pytest.raises(TableError, match=f"{RELATIVE}: "):
            while fetch.help(buffer):
                pass
    assert fetch.is_over and not path.exists() and not partial_path(path).exists()
    is_readable = fetch.read_into(memoryview(bytearray(2)), offset=video.values_begin)
    assert is_readable == (what == "footer")
    fetch = began(store, path, run_bytes=3000)
    while fetch.help(buffer):
        pass
    assert path.read_bytes() == data


def test_a_layout_that_only_parquet_knows_is_read_by_it(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instants in another place than the last bytes of their column are no damage."""
    real = feature_fetch.video_extents

    def elsewhere(*arguments: Any, **options: Any) -> list[VideoExtent]:
        return [
            VideoExtent(**{**vars(video), "centers_begin": video.centers_begin - 8})
            for video in real(*arguments, **options)
        ]

    monkeypatch.setattr(feature_fetch, "video_extents", elsewhere)
    fetch, buffer = began(store, path, run_bytes=3000), request_buffer(10**6)
    assert fetch.help(buffer) and not fetch._checked
    while fetch.help(buffer):
        pass
    assert path.read_bytes() == store.read_bytes(RELATIVE)


def test_a_part_is_whole_though_the_disk_takes_little_at_once(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a write did not take was left out without a word."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda to, piece, offset: write(to, piece[:700], offset))
    fetch, buffer = began(store, path, run_bytes=3000), request_buffer(10**6)
    while fetch.help(buffer):
        pass
    assert path.read_bytes() == store.read_bytes(RELATIVE)


def test_one_of_two_is_told_to_wait(store: Store, path: Path) -> None:
    fetch = began(store, path, run_bytes=10**6)
    with pytest.raises(BlockingIOError):
        begin(store, path, run_bytes=10**6, wait=False)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(begin, store, path, run_bytes=10**6)
        fetch.help(request_buffer(10**6))
        assert other.result(timeout=60) is None


@pytest.mark.parametrize("footer_bytes", [8, 1000, 2**16])
def test_a_footer_of_any_length(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, footer_bytes: int
) -> None:
    monkeypatch.setattr(feature_fetch, "FOOTER_BYTES", footer_bytes)
    assert began(store, path, run_bytes=1).num_waiting == len(VIDEOS)


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", bytes(1000), b"PAR1" + bytes(90) + b"\xff" * 4 + b"PAR1"]
)
def test_what_is_no_part_is_a_table_error(store: Store, path: Path, data: bytes) -> None:
    store.write_bytes(RELATIVE, data)
    with pytest.raises(TableError, match=f"{RELATIVE}: "):
        begin(store, path, run_bytes=10**6)
    assert not partial_path(path).exists()
    path.write_bytes(data)
    with pytest.raises(TableError, match="remote/part: "):
        check_part(path, source="remote/part")


def extents(*begins: int) -> list[VideoExtent]:
    return [VideoExtent(begin, 0, 0, np.dtype("float16"), (1, 1), "") for begin in begins]


def test_runs_by_hand() -> None:
    """Bytes 0 to 4 are Parquet's own and go with the first video, the footer with the last."""
    videos = extents(4, 100, 180, 500)
    assert plan_runs(videos, num_bytes=550, run_bytes=200) == [
        Run(0, 180, tuple(videos[:2])),
        Run(180, 500, tuple(videos[2:3])),
        Run(500, 550, tuple(videos[3:])),
    ]
    assert plan_runs(videos, num_bytes=550, run_bytes=550) == [Run(0, 550, tuple(videos))]
    assert plan_runs([], num_bytes=9, run_bytes=1) == [Run(0, 9, ())]


@pytest.mark.parametrize("begins", [(4, 100, 90), (4, 600)])
def test_row_groups_that_overlap_are_refused(begins: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="row groups must lie one behind the other"):
        plan_runs(extents(*begins), num_bytes=550, run_bytes=200)
