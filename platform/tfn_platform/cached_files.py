"""Ranges of a remote store's parts of FEATURES, through a cache on a local disk.

Any number of processes of a machine may share one cache. A part that nobody fetches ahead is
fetched whole by the first that needs it, while the others wait. While parts are fetched ahead
nobody waits for them: a video that is not there yet is read remotely, by one range. So are those of
parts that find no room: throwing out parts that the same epoch will come back to would fetch each
of them many times.
"""

import fcntl
import os
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tfn_platform.errors import TableError
from tfn_platform.feature_cache import (
    AHEAD_FILE,
    IN_USE_FILE,
    LOCK_SUFFIX,
    NO_ROOM_ERRORS,
    FeatureCache,
    locked,
)
from tfn_platform.feature_fetch import PartFetch, request_buffer
from tfn_platform.fetch_ahead import FetchAhead
from tfn_platform.ranged_files import RangedFiles
from tfn_platform.store import Store

# All requests at a time of a process that fetches ahead hold as much in memory, and so does one
# that does not.
REQUEST_BYTES = 64 * 2**20


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
        self._no_room: set[str] = set()
        num_threads = self._cache.num_threads
        self._ahead = FetchAhead(
            num_threads=num_threads, request_bytes=-(-REQUEST_BYTES // num_threads)
        )
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
        if self._process != os.getpid():
            self._begin()
        path = self._path(relative)
        if not path.exists():
            fetch = self._ahead.fetch_of(relative)
            if fetch is not None and fetch.read_into(target, offset=offset):
                return
            if not self._is_expected(relative):
                self._fetch(relative)
        files = self._local if path.exists() else self._remote
        files.read_into(relative, target, offset=offset)

    def prefetch(self, relatives: Sequence[str]) -> None:
        """Fetch files in the background, in this order, in place of what was asked for before.

        Files that found no room before are tried again.
        """
        if self._process != os.getpid():
            self._begin()
        self._no_room = set()
        names = [name for name in relatives if not self._path(name).exists()]
        self._ahead.replace(names, source=self)

    def _path(self, relative: str) -> Path:
        return self._folder / relative

    def _is_expected(self, relative: str) -> bool:
        """Whether a part that is not there will come without our doing."""
        if self._ahead.is_running:
            return self._ahead.expects(relative)
        # One after another, or those who ask would take each other for what they ask for.
        with locked(self._folder / f"{AHEAD_FILE}{LOCK_SUFFIX}"):
            try:
                with locked(self._folder / AHEAD_FILE, mode=fcntl.LOCK_EX | fcntl.LOCK_NB):
                    return False
            except BlockingIOError:
                return True

    def fetching_ahead(self) -> ExitStack:
        """Tell other processes, a DataLoader's workers say, that parts come without their doing."""
        held = ExitStack()
        held.enter_context(locked(self._folder / AHEAD_FILE, mode=fcntl.LOCK_SH))
        return held

    def _fetch(self, relative: str) -> None:
        """Have a file in the cache, if there is room for it."""
        if relative in self._no_room:
            return
        fetch = self.begin_part(relative, request_bytes=REQUEST_BYTES, wait=True)
        if fetch is not None:
            buffer = request_buffer(REQUEST_BYTES)
            while self.help_part(relative, fetch, buffer):
                pass

    def begin_part(self, relative: str, *, request_bytes: int, wait: bool) -> PartFetch | None:
        """Begin to fetch a part; None where it is there or finds no room.

        Raises:
            BlockingIOError: others are fetching it, and `wait` is false.
            TableError: it cannot be read, or be written for another reason.
        """
        try:
            return PartFetch.begin(
                self._remote,
                relative,
                self._path(relative),
                cache=self._cache,
                run_bytes=request_bytes,
                wait=wait,
            )
        except BlockingIOError:
            raise
        except OSError as error:
            self._note_lack_of_room(relative, error)
            return None

    def help_part(self, relative: str, fetch: PartFetch, buffer: memoryview) -> bool:
        """Fetch a run of a part; False where none is left, TableError as for `begin_part`."""
        try:
            return fetch.help(buffer)
        except OSError as error:
            self._note_lack_of_room(relative, error)
            return False

    def _note_lack_of_room(self, relative: str, error: OSError) -> None:
        if error.errno not in NO_ROOM_ERRORS:
            uri = self.store.uri(relative)
            raise TableError(f"{uri}: cannot be kept in the cache: {error}") from error
        self._no_room.add(relative)

    def _begin_use(self) -> None:
        """Take a lock, held as long as this object lives, that keeps the files from removal."""
        with self._cache.locked():
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / IN_USE_FILE
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.utime(path)
