"""A part of FEATURES on its way from a remote store to a local disk.

Any number of threads fetch runs of whole videos of it. A run is written to its place and checked by
the hashes of its videos while it is in memory; from then on it can be read, before the rest is
there. The file gets its name once all of it is there and right.
"""

import errno
import fcntl
import os
import threading
import weakref
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfn_platform.errors import TableError
from tfn_platform.feature_cache import LOCK_SUFFIX, FeatureCache, locked, reserve
from tfn_platform.feature_footer import VideoExtent, video_extents
from tfn_platform.feature_table import HASH_LENGTH, begin_content_hash, iter_feature_file
from tfn_platform.ranged_files import LocalFile, RangedFiles

# What Arrow itself asks for; a part of 64 videos has a footer of 26 KiB.
FOOTER_BYTES = 2**16
MAGIC = b"PAR1"


@dataclass(frozen=True)
class Run:
    """Bytes `begin` to `end` of a file, and the videos whose row groups they are."""

    begin: int
    end: int
    videos: tuple[VideoExtent, ...]


class PartFetch:
    """Fetches one part; holds its lock, and room for it in the cache, until that is over."""

    def __init__(
        self, files: RangedFiles, relative: str, path: Path, *, cache: FeatureCache, run_bytes: int
    ) -> None:
        """Ask what the part holds, for `begin`."""
        self._files, self._relative, self._path = files, relative, path
        self._cache = cache
        self._source = files.store.uri(relative)
        self._descriptor = os.open(partial_path(path), os.O_RDWR)
        # Not at exit: a thread may still be writing, and the number may be another file's by then.
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        self._partial = LocalFile(str(partial_path(path)))
        runs = self._plan(run_bytes)
        self._lock = threading.Lock()
        self._waiting = deque(runs)
        self._checked: list[Run] = []
        self._num_left = self._num_runs = len(runs)
        self._ending = ExitStack()
        self._is_over = False

    @classmethod
    def begin(
        cls,
        files: RangedFiles,
        relative: str,
        path: Path,
        *,
        cache: FeatureCache,
        run_bytes: int,
        wait: bool,
    ) -> "PartFetch | None":
        """Begin to fetch a part, for which there is to be room in the cache.

        Args:
            files: of the remote store.
            relative: the part's name in it.
            path: where it will be once it is whole.
            cache: holds `path`.
            run_bytes: that one run should have at most; a longer video is a run of its own.
            wait: for another process or thread that is fetching it.

        Returns:
            None where the part is there.

        Raises:
            BlockingIOError: another one is fetching it, and `wait` is false.
            OSError: among others ENOSPC where there is no room.
            TableError: the part cannot be read, or is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(path)
        with ExitStack() as ending:
            mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
            ending.enter_context(locked(path.with_name(f"{path.name}{LOCK_SUFFIX}"), mode=mode))
            if path.exists():
                return None
            num_bytes = files.num_bytes(relative)
            ending.callback(partial.unlink, missing_ok=True)
            with cache.locked():
                # A killed process leaves such a file; whoever fetches the part next takes it over.
                partial.unlink(missing_ok=True)
                if not cache.make_room(num_bytes):
                    raise OSError(errno.ENOSPC, "no room in the cache", str(path))
                with partial.open("wb") as stream:
                    reserve(stream.fileno(), num_bytes)  # counts from now on
            fetch = cls(files, relative, path, cache=cache, run_bytes=run_bytes)
            fetch._ending = ending.pop_all()
            return fetch

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do: the part is there, or given up."""
        return self._is_over

    @property
    def num_waiting(self) -> int:
        """How many runs nobody has begun."""
        return len(self._waiting)

    def read_into(self, target: memoryview, *, offset: int) -> bool:
        """Fill `target` from `offset` on; False if that is not there, or not checked, as yet."""
        with self._lock:
            is_there = any(
                run.begin <= offset and offset + len(target) <= run.end for run in self._checked
            )
        return is_there and self._partial.read_into(target, offset=offset) == len(target)

    def help(self, buffer: memoryview) -> bool:
        """Fetch one run that nobody has begun, at most the buffer's size a request.

        Returns:
            Whether there was one.

        Raises:
            TableError: the part cannot be read, or is damaged; nothing is kept of it.
            OSError: it cannot be written; nothing is kept of it.
        """
        with self._lock:
            if not self._waiting:
                return False
            run = self._waiting.popleft()
        try:
            is_right = self._fetch(run, buffer)
            with self._lock:
                self._num_left -= 1
                is_last = self._num_left == 0
                if is_right:
                    self._checked.append(run)
            if is_last:
                self._keep()
        except BaseException:  # also a Ctrl-C must not leave the part locked
            self._give_up()
            raise
        return True

    def _fetch(self, run: Run, buffer: memoryview) -> bool:
        """Have a run on the disk; returns whether it is what was written."""
        hashes = [_VideoHash(video) for video in run.videos]
        for offset in range(run.begin, run.end, len(buffer)):
            piece = buffer[: min(len(buffer), run.end - offset)]
            self._files.read_into(self._relative, piece, offset=offset)
            _write(self._descriptor, piece, offset=offset)
            # What is hashed is what the disk will give, not what it was given.
            count = self._partial.read_into(piece, offset=offset)
            for video in hashes:
                video.update(piece[:count], offset=offset)
        return all(video.is_right() for video in hashes)

    def _keep(self) -> None:
        found = bytearray(len(self._footer))
        footer_begin = self._partial.num_bytes - len(found)
        self._partial.read_into(memoryview(found), offset=footer_begin)
        if len(self._checked) < self._num_runs or found != self._footer:
            # Damaged, or laid out in a way that only Parquet's own reader knows.
            check_part(partial_path(self._path), source=self._source)
        with self._cache.locked():
            partial_path(self._path).rename(self._path)
        self._end()

    def _give_up(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._num_left = -1
        self._end()

    def _end(self) -> None:
        # Of several threads that come here one finds something to do.
        with self._lock:
            ending = self._ending.pop_all()
        ending.close()
        self._is_over = True

    def _plan(self, run_bytes: int) -> list[Run]:
        num_bytes = self._partial.num_bytes
        self._footer = self._read_end(FOOTER_BYTES)
        length = int.from_bytes(self._footer[-8:-4], "little") + 8
        if self._footer[-4:] != MAGIC or length > num_bytes:
            raise TableError(f"{self._source}: is no Parquet file, or is damaged")
        if length > len(self._footer):
            self._footer = self._read_end(length)
        try:
            parquet = pq.ParquetFile(pa.BufferReader(self._footer))
            videos = video_extents(parquet, source=self._source)
            return plan_runs(videos, num_bytes=num_bytes, run_bytes=run_bytes)
        # What a damaged footer says may lead anywhere.
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise _damaged(self._source, error) from error

    def _read_end(self, length: int) -> bytes:
        num_bytes = self._partial.num_bytes
        target = bytearray(min(length, num_bytes))
        self._files.read_into(self._relative, memoryview(target), offset=num_bytes - len(target))
        return bytes(target)


class _VideoHash:
    """The hash of a video's features, from pieces of its part that come in order."""

    def __init__(self, video: VideoExtent) -> None:
        self._video = video
        self._digest = begin_content_hash(video.dtype, video.shape)
        self._centers = bytearray()

    def update(self, piece: memoryview, *, offset: int) -> None:
        """Take what belongs to the video of the bytes that lie at `offset`."""
        video = self._video
        self._digest.update(_overlap(piece, offset, video.values_begin, video.num_value_bytes))
        self._centers += _overlap(piece, offset, video.centers_begin, video.num_center_bytes)

    def is_right(self) -> bool:
        """Whether the hash is the one that was written down."""
        self._digest.update(self._centers)
        return self._digest.hexdigest()[:HASH_LENGTH] == self._video.content_hash


def _overlap(piece: memoryview, offset: int, begin: int, num_bytes: int) -> memoryview:
    first = max(0, begin - offset)
    return piece[first : max(first, begin + num_bytes - offset)]


def request_buffer(num_bytes: int) -> memoryview:
    """Memory for one request at a time: new memory costs more than the copy out of it."""
    return np.empty(num_bytes, np.uint8).data


def partial_path(path: Path) -> Path:
    """Where a part lies until it is whole."""
    return path.with_name(f"{path.name}.partial")


def plan_runs(videos: list[VideoExtent], *, num_bytes: int, run_bytes: int) -> list[Run]:
    """Cut a file between videos, each run as long as it may be; they cover all of it."""
    begins = [0, *(video.begin for video in videos[1:])]
    ends = [*begins[1:], num_bytes]
    runs: list[Run] = []
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin >= end:
            raise ValueError(f"row groups must lie one behind the other, got {begins}, {ends[-1]}")
        here = tuple(videos[number : number + 1])
        if runs and end - runs[-1].begin <= run_bytes:
            runs[-1] = Run(runs[-1].begin, end, runs[-1].videos + here)
        else:
            runs.append(Run(begin, end, here))
    return runs


def _write(descriptor: int, piece: memoryview, *, offset: int) -> None:
    # Less than all may be taken at once, as on a disk that is full.
    while piece:
        count = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[count:], offset + count


def check_part(path: Path, *, source: str) -> None:
    """Raise TableError unless a fetched part holds what was written; loads it page by page."""
    try:
        with pa.memory_map(str(path)) as content:
            data = memoryview(content.read_buffer())
        for _ in iter_feature_file(data, source=source):
            pass
    # What a damaged footer says may lead anywhere.
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        raise _damaged(source, error) from error


def _damaged(source: str, error: Exception) -> TableError:
    return TableError(f"{source}: is damaged, or was on its way here: {error}")
