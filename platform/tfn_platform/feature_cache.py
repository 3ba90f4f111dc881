"""Parts of a remote table kept on a local disk: fetched whole on first touch, then read from there.

Any number of processes of a machine may share one cache: a part is fetched by one of them while the
others wait, and checked by the hashes of its videos before anybody reads it. A part that finds no
room is read remotely, a range a video: throwing out parts that the same epoch will come back to
would fetch each of them many times.
"""

import errno
import fcntl
import os
import shutil
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tfn_platform.errors import TableError
from tfn_platform.feature_table import iter_feature_file
from tfn_platform.ranged_files import RangedFiles
from tfn_platform.store import Store

# One request fetches at most this much; a thread holds as much in memory.
REQUEST_BYTES = 64 * 2**20
LOCK_SUFFIX = ".lock"
IN_USE_FILE = ".in_use"
NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class FeatureCache:
    """A folder on a local disk for parts of remote tables.

    Attributes:
        folder: made where it is missing; may be shared by processes and data sets. It should hold
            nothing else.
        max_bytes: of all files in it. Data sets that no process uses make room for others.
        num_threads: parts that a process fetches ahead at the same time.
    """

    folder: Path
    max_bytes: int
    num_threads: int = 4

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("max_bytes", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from adding or removing files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / LOCK_SUFFIX):
            yield

    def make_room(self, num_bytes: int) -> bool:
        """Remove data sets not in use, the longest unused first; False if that is not enough.

        The caller holds `locked`.
        """
        too_many = self.used_bytes() + num_bytes - self.max_bytes
        if too_many > 0:
            uses = self.folder.glob(f"*/{IN_USE_FILE}")
            for in_use in sorted(uses, key=lambda path: path.stat().st_mtime):
                too_many -= _remove_unless_in_use(in_use)
                if too_many <= 0:
                    break
        return too_many <= 0 and shutil.disk_usage(self.folder).free > num_bytes

    def used_bytes(self) -> int:
        """What the files in the cache take."""
        return _bytes_below(self.folder)


def _bytes_below(folder: Path | str) -> int:
    """Bytes of all files in a folder; those that go meanwhile count or do not.

    Asked once for each part that is fetched, while other processes wait: one look at each file.
    """
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += _bytes_below(entry.path)
            elif not entry.name.endswith(LOCK_SUFFIX):
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _remove_unless_in_use(in_use: Path) -> int:
    """Remove a data set; returns how many bytes that frees."""
    with in_use.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        num_bytes = _bytes_below(in_use.parent)
        shutil.rmtree(in_use.parent)
        return num_bytes


class CachedFiles:
    """Ranges of a remote store's files, through a cache; safe to use as `RangedFiles` is."""

    is_local = False

    def __init__(self, files: RangedFiles, cache: FeatureCache, *, key: str) -> None:
        """Say whose files they are; other content under the same names needs another `key`."""
        self._remote = files
        self._cache = cache
        self._key = key
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._folder = self._cache.folder.resolve() / self._key
        self._local = RangedFiles(Store(str(self._folder)))
        self._ahead: deque[str] = deque()
        self._no_room: set[str] = set()
        self._begin_use()

    def __getstate__(self) -> dict[str, object]:
        """Without threads and locks."""
        return {"_remote": self._remote, "_cache": self._cache, "_key": self._key}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Start anew."""
        self.__dict__.update(state)
        self._begin()

    @property
    def store(self) -> Store:
        """The remote store, with a file system that belongs to this process."""
        return self._remote.store

    def read_into(self, relative: str, target: memoryview, *, offset: int) -> None:
        """Fill `target` (bytes) from a file's `offset` on; the whole file is fetched if need be.

        Raises:
            TableError: the file cannot be read, or ends before that.
        """
        files = self._local if self._fetch(relative) else self._remote
        files.read_into(relative, target, offset=offset)

    def prefetch(self, relatives: Sequence[str]) -> None:
        """Fetch files in the background, in this order, in place of what was asked for before.

        Files that found no room before are tried again.
        """
        if self._process != os.getpid():
            self._begin()
        self._no_room = set()
        self._ahead = ahead = deque(name for name in relatives if not self._path(name).exists())
        for _ in range(min(self._cache.num_threads, len(ahead))):
            threading.Thread(target=self._fetch_ahead, args=[ahead], daemon=True).start()

    def _fetch_ahead(self, names: deque[str]) -> None:
        while names and names is self._ahead:
            try:
                self._fetch(names.popleft())
            except (TableError, IndexError):
                # Whoever reads that file meets the error again and is told; the rest may do.
                continue

    def _path(self, relative: str) -> Path:
        return self._folder / relative

    def _fetch(self, relative: str) -> bool:
        """Have a file in the cache; False where there is no room for it."""
        if self._process != os.getpid():
            self._begin()
        path = self._path(relative)
        if path.exists():
            return True
        if relative in self._no_room:
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(f"{path.name}{LOCK_SUFFIX}")):
                if not path.exists():
                    self._fetch_locked(relative, path)
        except OSError as error:
            if error.errno not in NO_ROOM_ERRORS:
                uri = self.store.uri(relative)
                raise TableError(f"{uri}: cannot be kept in the cache: {error}") from error
            self._no_room.add(relative)
        return path.exists()

    def _fetch_locked(self, relative: str, path: Path) -> None:
        num_bytes = self._remote.num_bytes(relative)
        # A killed process leaves such a file; whoever fetches the part next takes it over.
        partial = path.with_name(f"{path.name}.partial")
        try:
            with self._cache.locked():
                partial.unlink(missing_ok=True)
                if not self._cache.make_room(num_bytes):
                    self._no_room.add(relative)
                    return
                with partial.open("wb") as stream:
                    _reserve(stream.fileno(), num_bytes)  # counts from now on
            with partial.open("r+b", buffering=0) as stream:
                self._remote.copy_to(relative, stream, request_bytes=REQUEST_BYTES)
            _check_part(partial, source=self.store.uri(relative))
            with self._cache.locked():
                partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    def _begin_use(self) -> None:
        """Take a lock, held as long as this object lives, that keeps the files from removal."""
        with self._cache.locked():
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / IN_USE_FILE
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.utime(path)


def _reserve(descriptor: int, num_bytes: int) -> None:
    """Make a file of so many bytes, with room taken on the disk where that can be done."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
            return
        except OSError as error:
            if error.errno in NO_ROOM_ERRORS:
                raise
    os.truncate(descriptor, num_bytes)


def _check_part(path: Path, *, source: str) -> None:
    """Raise TableError unless a fetched part holds what was written; loads it page by page."""
    try:
        with pa.memory_map(str(path)) as content:
            data = memoryview(content.read_buffer())
        for _ in iter_feature_file(data, source=source):
            pass
    # What a damaged footer says may lead anywhere.
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        raise TableError(f"{source}: is damaged, or was on its way here: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said aloud: a process forked meanwhile holds a copy of the file that closing leaves.
            fcntl.flock(stream, fcntl.LOCK_UN)
