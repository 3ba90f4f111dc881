"""Small parts of FEATURES in an S3 bucket, and what became of them in a cache.

Used by naming the fixtures in the test file.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.some_features import feature_contract, random_videos, write_parts
from tfn_platform.cached_files import CachedFiles
from tfn_platform.feature_fetch import PartFetch
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_table import feature_part
from tfn_platform.ranged_files import RangedFiles
from tfn_platform.store import StageFolder, Store

CONTRACT = feature_contract(feature_dim=64)
NUM_PARTS, VIDEOS_PER_PART = 4, 5
NAMES = [[f"v{part}{number}" for number in range(VIDEOS_PER_PART)] for part in range(NUM_PARTS)]
PARTS = [
    random_videos(CONTRACT, seed=part, **dict.fromkeys(names, 10))
    for part, names in enumerate(NAMES)
]
VIDEO_BYTES = PARTS[0][0].values.nbytes
VALUES = {video.video_id: video.values for part in PARTS for video in part}


@pytest.fixture
def folder(s3_root: str) -> StageFolder:
    return write_parts(Store.open(s3_root), PARTS, contract=CONTRACT)


@dataclass
class Requests:
    """How often each part was fetched, and how often one of its videos was read by a range."""

    fetches: "Counter[str]" = field(default_factory=Counter)
    ranges: "Counter[str]" = field(default_factory=Counter)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    requests = Requests()
    make, read = PartFetch.__init__, RangedFiles.read_into

    def counting_make(self: PartFetch, *arguments: Any, **options: Any) -> None:
        requests.fetches[arguments[1]] += 1
        make(self, *arguments, **options)

    def counting_read(self: RangedFiles, relative: str, target: memoryview, *, offset: int) -> None:
        if not self.is_local and len(target) == VIDEO_BYTES:
            requests.ranges[relative] += 1
        read(self, relative, target, offset=offset)

    monkeypatch.setattr(PartFetch, "__init__", counting_make)
    monkeypatch.setattr(RangedFiles, "read_into", counting_read)
    return requests


def files_of(reader: FeatureReader) -> CachedFiles:
    assert isinstance(reader._files, CachedFiles)
    return reader._files


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.01)


def parts_in(folder: Path) -> int:
    return len(list(folder.rglob("*.parquet")))


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
