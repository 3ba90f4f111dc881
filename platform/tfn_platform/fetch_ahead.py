"""Threads that fetch parts before they are asked for, in a given order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Protocol

from tfn_platform.errors import TableError
from tfn_platform.feature_fetch import PartFetch, request_buffer


class PartSource(Protocol):
    """Where parts come from."""

    def begin_part(self, name: str, *, request_bytes: int, wait: bool) -> PartFetch | None:
        """Begin to fetch a part; None where nothing is to be fetched.

        Raises:
            BlockingIOError: others are fetching it, and `wait` is false.
            TableError: it is not to be had.
        """

    def help_part(self, name: str, fetch: PartFetch, buffer: memoryview) -> bool:
        """Fetch a run of a part; False where none is left, TableError if it is not to be had."""

    def fetching_ahead(self) -> ExitStack:
        """What each thread holds as long as it has something to do."""


class FetchAhead:
    """Fetches parts run by run, all threads the earliest part that still has one to be begun."""

    def __init__(self, *, num_threads: int, request_bytes: int) -> None:
        """Nothing is to be fetched yet.

        Args:
            num_threads: how many there are while there is something to do.
            request_bytes: how much each of them holds in memory.
        """
        self._num_threads, self._request_bytes = num_threads, request_bytes
        self._changed = threading.Condition()
        self._names: deque[str] = deque()
        # Others are fetching these, but may fail.
        self._contended: deque[str] = deque()
        self._fetches: dict[str, PartFetch] = {}
        self._expected: set[str] = set()
        self._num_beginning = 0
        self._num_working = 0
        self._num_running = 0

    @property
    def is_running(self) -> bool:
        """Whether there is something to do, or `fetching_ahead` is still held."""
        return self._num_running > 0

    def expects(self, name: str) -> bool:
        """Whether a part will be there, unless something goes wrong."""
        return name in self._expected

    def fetch_of(self, name: str) -> PartFetch | None:
        """A part that is on its way."""
        return self._fetches.get(name)

    def replace(self, names: Iterable[str], *, source: PartSource) -> None:
        """Fetch these parts, behind those on their way, in place of others that are to come.

        Args:
            names: the earliest needed first.
            source: where from; let go of when nothing is left to do.
        """
        with self._changed:
            self._names = deque(name for name in names if name not in self._fetches)
            self._contended.clear()
            self._expected = {*self._names, *self._fetches}
            num_new = self._num_threads - self._num_working if self._names else 0
            self._num_working += num_new
            self._num_running += num_new
            self._changed.notify_all()
        for _ in range(num_new):
            arguments = (source, source.fetching_ahead())
            threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(self, source: PartSource, held: ExitStack) -> None:
        buffer = request_buffer(self._request_bytes)
        try:
            with held:
                while (task := self._next_task(source, buffer)) is not None:
                    task()
        finally:
            with self._changed:
                self._num_running -= 1

    def _next_task(self, source: PartSource, buffer: memoryview) -> Callable[[], None] | None:
        """Help with a part, or begin one; None if nothing is left."""
        with self._changed:
            while True:
                to_help = [item for item in self._fetches.items() if item[1].num_waiting]
                num_waiting = sum(fetch.num_waiting for _, fetch in to_help)
                # A part has runs only some round trips after it was begun.
                if self._names and num_waiting < self._num_threads:
                    self._num_beginning += 1
                    return partial(self._begin, self._names.popleft(), source, wait=False)
                if to_help:
                    return partial(self._help, *to_help[0], source, buffer)
                # Only now: the others may be waiting for a part that is in hand here.
                if self._contended:
                    self._num_beginning += 1
                    return partial(self._begin, self._contended.popleft(), source, wait=True)
                if not self._num_beginning:
                    self._num_working -= 1
                    return None
                self._changed.wait()

    def _begin(self, name: str, source: PartSource, *, wait: bool) -> None:
        fetch, is_contended = None, False
        try:
            fetch = source.begin_part(name, request_bytes=self._request_bytes, wait=wait)
        except BlockingIOError:
            is_contended = True
        except TableError:
            # Whoever reads the part meets the error again and is told; the rest may do.
            pass
        with self._changed:
            self._num_beginning -= 1
            if fetch is not None:
                self._fetches[name] = fetch
            elif is_contended and name in self._expected:
                self._contended.append(name)
            else:
                self._expected.discard(name)
            self._changed.notify_all()

    def _help(self, name: str, fetch: PartFetch, source: PartSource, buffer: memoryview) -> None:
        try:
            source.help_part(name, fetch, buffer)
        except TableError:
            # As above.
            pass
        with self._changed:
            if fetch.is_over and self._fetches.get(name) is fetch:
                del self._fetches[name]
                self._expected.discard(name)
