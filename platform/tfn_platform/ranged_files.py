"""Bytes out of the middle of many files of a store, a bounded number of which stay open."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from tfn_platform.errors import TableError
from tfn_platform.store import Store


class OpenFile(Protocol):
    """A file that any number of threads may read from."""

    @property
    def num_bytes(self) -> int:
        """Its size."""

    def read_into(self, target: memoryview, *, offset: int) -> int:
        """Fill `target` from `offset` on; returns how many bytes there were."""


class LocalFile:
    """A file of this machine, read without a copy in between."""

    def __init__(self, path: str) -> None:
        """Open it; raise OSError if that cannot be done."""
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return os.fstat(self._descriptor).st_size

    def read_into(self, target: memoryview, *, offset: int) -> int:
        """Fill `target` from `offset` on; returns how many bytes there were."""
        done = 0
        while done < len(target):
            count = os.preadv(self._descriptor, [target[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done


class ForkGate:
    """Lets the process be forked only while no thread is in a request to an object store.

    The child of a fork in the middle of one inherits locks of the store's client that nobody there
    will ever release, and its first own request would wait for ever.
    """

    def __init__(self) -> None:
        """Nothing is running."""
        self.begin()

    def begin(self) -> None:
        """Start anew, as in the child of a fork."""
        self._changed = threading.Condition()
        self._running = 0
        self._forks = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Put off forks meanwhile."""
        with self._changed:
            # Else a fork might wait as long as threads have something to fetch.
            self._changed.wait_for(lambda: self._forks == 0)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Wait for what is running and let nothing begin."""
        self._changed.acquire()
        self._forks += 1
        self._changed.wait_for(lambda: self._running == 0)

    def open(self) -> None:
        """Let requests begin again."""
        self._forks -= 1
        self._changed.notify_all()
        self._changed.release()


GATE = ForkGate()
os.register_at_fork(before=GATE.close, after_in_parent=GATE.open, after_in_child=GATE.begin)


class RemoteFile:
    """An object of an object store; each read is one request."""

    def __init__(self, store: Store, relative: str) -> None:
        """Ask for its size, once; raise OSError if that cannot be done."""
        with GATE.request():
            self._file = store.filesystem.open_input_file(store.path(relative))

    @property
    def num_bytes(self) -> int:
        """Its size, as it was when the file was opened."""
        return int(self._file.size())

    def read_into(self, target: memoryview, *, offset: int) -> int:
        """Fill `target` from `offset` on; returns how many bytes there were."""
        # Straight into the target: `read_at` would fill memory of its own, to be copied.
        with GATE.request(), self._file.get_stream(offset, len(target)) as stream:
            return int(stream.readinto(target))


class RangedFiles:
    """Reads ranges of a store's files; safe to use from threads, and to take along to a process.

    A process that was forked, or that this object was sent to, opens its own files: connections to
    an object store cannot be shared.
    """

    def __init__(self, store: Store, *, max_open: int = 64) -> None:
        """At most `max_open` files stay open; the one not used for longest is closed first."""
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, got {max_open}")
        self._root = store.root
        self._max_open = max_open
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        # Its own file system, not the one that another process may be talking through.
        self._store = Store(self._root)
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        """Without what is open."""
        return {"root": self._root, "max_open": self._max_open}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Start with nothing open."""
        self._root, self._max_open = str(state["root"]), int(str(state["max_open"]))
        self._begin()

    @property
    def is_local(self) -> bool:
        """Whether the files lie on this machine."""
        return self.store.is_local

    @property
    def store(self) -> Store:
        """The store, with a file system that belongs to this process."""
        if self._process != os.getpid():
            self._begin()
        return self._store

    def read_into(self, relative: str, target: memoryview, *, offset: int) -> None:
        """Fill `target` (bytes) from a file's `offset` on.

        Raises:
            TableError: the file cannot be read, or ends before that.
        """
        count = self._or_table_error(relative, lambda file: file.read_into(target, offset=offset))
        if count != len(target):
            raise TableError(
                f"{self._store.uri(relative)}: must hold {len(target)} bytes from byte {offset} "
                f"on, got {count}; the file is cut off or another one"
            )

    def num_bytes(self, relative: str) -> int:
        """The size of a file; raise TableError if it cannot be opened."""
        return self._or_table_error(relative, lambda file: file.num_bytes)

    def _or_table_error(self, relative: str, ask: Callable[[OpenFile], int]) -> int:
        try:
            return ask(self._open(relative))
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{self._store.uri(relative)}: cannot be read: {error}") from error

    def _open(self, relative: str) -> OpenFile:
        store = self.store
        with self._lock:
            file = self._files.get(relative)
            if file is not None:
                self._files.move_to_end(relative)
                return file
        file = LocalFile(store.path(relative)) if store.is_local else RemoteFile(store, relative)
        with self._lock:
            self._files[relative] = file
            while len(self._files) > self._max_open:
                # Not closed here but when the last thread that reads from it lets go.
                self._files.popitem(last=False)
        return file
