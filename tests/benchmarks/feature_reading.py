"""Reading features against one .npy file a video: locally, and from an S3 server of this machine.

Both sides read the same values in the same order in one process. The .npy side is as cheap as we
could make it: `np.load` locally; over S3 one GET an object, by botocore, whose body becomes the
array without a copy. Its files and our parts are written before anything is timed.
"""

import io
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import boto3
import numpy as np
from botocore.config import Config
from numpy.typing import NDArray

from tests.some_features import STAGE, feature_contract, write_parts
from tfn_platform.feature_cache import FeatureCache
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_table import VideoFeatures
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FeatureContract

VIDEOS_PER_PART = 64
AHEAD_THREADS = 4
# As many as REFERENCE trains a member for.
TRAINING_EPOCHS = 9
# An epoch from the page cache is over in no time, and any other process's turn would show in it.
LOCAL_REPEATS = 9
ValueType = Literal["float16", "float32"]


@dataclass(frozen=True)
class Size:
    """How much is read."""

    num_videos: int
    num_clips: int
    feature_dim: int
    value_type: ValueType


@dataclass(frozen=True)
class Figure:
    """Seconds of the .npy way and ours; medians of the repeats, taken in turns."""

    name: str
    npy_wall: float
    npy_cpu: float
    our_wall: float
    our_cpu: float
    goal: float
    note: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is, in wall time."""
        return self.npy_wall / self.our_wall


def random_features(size: Size) -> tuple[FeatureContract, list[VideoFeatures]]:
    """Videos as a ReLU and an average over space and time leave them: from 0 on, right-skewed."""
    contract = feature_contract(size.value_type, feature_dim=size.feature_dim)
    centers = contract.center_seconds(size.num_clips)
    rng = np.random.default_rng(0)
    scale = rng.gamma(1.0, 0.3, size.feature_dim).astype(np.float32)
    videos = []
    for number in range(size.num_videos):
        noise = rng.standard_gamma(0.7, (size.num_clips, size.feature_dim), dtype=np.float32)
        values = (noise * scale).astype(size.value_type)
        videos.append(VideoFeatures(f"video{number:05d}", values, centers))
    return contract, videos


def write_ours(store: Store, size: Size) -> StageFolder:
    """Our parts of the features, in a store."""
    contract, videos = random_features(size)
    parts = [
        videos[begin : begin + VIDEOS_PER_PART] for begin in range(0, len(videos), VIDEOS_PER_PART)
    ]
    return write_parts(store, parts, contract=contract)


def in_turns(
    npy: Callable[[], object], ours: Callable[[], object], *, repeats: int
) -> tuple[float, float, float, float]:
    """Median wall and CPU seconds of the .npy way and of ours."""
    times: list[list[float]] = []
    for _ in range(repeats):
        row: list[float] = []
        for work in (npy, ours):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            row += [time.perf_counter() - wall, time.process_time() - cpu]
        times.append(row)
    npy_wall, npy_cpu, our_wall, our_cpu = (median(column) for column in zip(*times, strict=True))
    return npy_wall, npy_cpu, our_wall, our_cpu


def fill_bucket(folder: Path, size: Size) -> None:
    """Both ways to store the same features, in a folder that a server shows as a bucket."""
    reader = FeatureReader(write_ours(Store.open(str(folder)), size))
    for name in reader.video_ids:
        np.save(folder / f"{name}.npy", reader.read(name))


def local_figures(folder: Path, *, repeats: int) -> Iterator[Figure]:
    """One video at random, and an epoch, from a local disk whose files are in the page cache."""
    reader = FeatureReader(STAGE.folder(Store.open(str(folder))))
    names = list(reader.video_ids)

    def load(name: str) -> NDArray[Any]:
        values: NDArray[Any] = np.load(folder / f"{name}.npy")
        return values

    yield from _figures(
        "local", names, load=load, reader=reader, repeats=repeats, note="np.load", goal=1.0
    )


def _figures(
    where: str,
    names: list[str],
    *,
    load: Callable[[str], NDArray[Any]],
    reader: FeatureReader,
    repeats: int,
    note: str,
    goal: float,
) -> Iterator[Figure]:
    """One video at random, then all of them in a shuffled order, without a cache of our own."""
    rng = np.random.default_rng(1)
    for name in names:
        np.testing.assert_array_equal(load(name), reader.read(name))
    picks = [names[pick] for pick in rng.integers(len(names), size=max(20, 5 * repeats))]
    singles = [
        in_turns(lambda name=name: load(name), lambda name=name: reader.read(name), repeats=1)  # type: ignore[misc]
        for name in picks
    ]
    one = [median(column) for column in zip(*singles, strict=True)]
    yield Figure(f"{where}: one video at random", *one, goal=goal, note=note)
    order = [names[position] for position in rng.permutation(len(names))]
    epochs = LOCAL_REPEATS * repeats if where == "local" else repeats
    times = in_turns(
        lambda: _epoch(load, order), lambda: _epoch(reader.read, order), repeats=epochs
    )
    yield Figure(f"{where}: shuffled epoch, no cache", *times, goal=goal, note=note)


def _epoch(read: Callable[[str], object], order: list[str]) -> None:
    """Read each video and let it go, as a training does: keeping all measures new memory alone."""
    for name in order:
        read(name)


class NpyBucket:
    """One .npy object a video, each read by one GET."""

    def __init__(self, bucket: str) -> None:
        """Say which bucket they lie in."""
        self._bucket = bucket
        self._client = boto3.client("s3", config=Config(max_pool_connections=AHEAD_THREADS))

    def load(self, name: str) -> NDArray[Any]:
        """Read one object."""
        found = self._client.get_object(Bucket=self._bucket, Key=f"{name}.npy")
        body = found["Body"].read()
        stream = io.BytesIO(body)
        assert np.lib.format.read_magic(stream) == (1, 0)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        return np.frombuffer(body, dtype, offset=stream.tell()).reshape(shape)


def s3_figures(bucket: str, cache: Path, *, repeats: int) -> Iterator[Figure]:
    """One video at random, and epochs in shuffled order, of a bucket that `fill_bucket` filled."""
    folder = STAGE.folder(Store.open(f"s3://{bucket}"))
    npy, reader = NpyBucket(bucket), FeatureReader(folder)
    names = list(reader.video_ids)
    note = "one GET an object"
    yield from _figures(
        "S3", names, load=npy.load, reader=reader, repeats=repeats, note=note, goal=1.0
    )
    sides = _Bucket(npy, folder, cache)
    orders = _orders(names, repeats)
    for threads in (1, AHEAD_THREADS):
        yield _median_figure([sides.figure([order], threads, "first") for order in orders])
    filled = sides.new_cache()
    sides.read_ours(orders[:1], filled, threads=1)
    later = [sides.figure([order], 1, "later", cache=filled) for order in orders]
    yield _median_figure(later)
    for threads in (1, AHEAD_THREADS):
        yield sides.figure(_orders(names, TRAINING_EPOCHS), threads, "training")


def _orders(names: list[str], repeats: int) -> list[list[str]]:
    rng = np.random.default_rng(2)
    return [[names[position] for position in rng.permutation(len(names))] for _ in range(repeats)]


WHAT = {
    "first": "first shuffled epoch, cache empty",
    "later": "later shuffled epoch, local cache",
    "training": f"{TRAINING_EPOCHS} shuffled epochs, cache empty",
}


class _Bucket:
    """Epochs of both sides over S3, ours through caches in one folder."""

    def __init__(self, npy: NpyBucket, folder: StageFolder, caches: Path) -> None:
        self._npy, self._folder, self._caches = npy, folder, caches
        self._num_caches = 0

    def new_cache(self) -> Path:
        """An empty folder; the one before is thrown away."""
        shutil.rmtree(self._caches, ignore_errors=True)
        self._num_caches += 1
        return self._caches / str(self._num_caches)

    def read_npy(self, orders: list[list[str]], *, threads: int) -> None:
        """Epochs, `threads` requests at a time."""
        for order in orders:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(self._npy.load, order):
                    pass

    def read_ours(self, orders: list[list[str]], cache: Path, *, threads: int) -> None:
        """Epochs by one reader, `threads` requests at a time with the reader's own."""
        ahead = threads - 1
        held = FeatureCache(cache, max_bytes=2**40, num_threads=max(1, ahead))
        reader = FeatureReader(self._folder, cache=held)
        for order in orders:
            if ahead:
                reader.prefetch(order)
            _epoch(reader.read, order)

    def figure(
        self, orders: list[list[str]], threads: int, what: str, *, cache: Path | None = None
    ) -> Figure:
        """Epochs in these orders; in an empty cache where none is given."""
        folder = cache or self.new_cache()
        times = in_turns(
            lambda: self.read_npy(orders, threads=threads),
            lambda: self.read_ours(orders, folder, threads=threads),
            repeats=1,
        )
        name = f"S3: {WHAT[what]}, {threads} thread{'s' * (threads > 1)}"
        note = "one GET an object, as many threads, anew each epoch"
        return Figure(name, *times, goal=3.0, note=note)


def _median_figure(figures: list[Figure]) -> Figure:
    columns = zip(*((f.npy_wall, f.npy_cpu, f.our_wall, f.our_cpu) for f in figures), strict=True)
    times = [median(column) for column in columns]
    return Figure(figures[0].name, *times, goal=figures[0].goal, note=figures[0].note)
