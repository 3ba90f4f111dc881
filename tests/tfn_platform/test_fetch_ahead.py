"""Threads that fetch ahead: in which order, what they do for one another, when they wait."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import pytest

from tfn_platform.errors import TableError
from tfn_platform.feature_fetch import PartFetch
from tfn_platform.fetch_ahead import FetchAhead


class Part:
    """Stands in for a `PartFetch`."""

    def __init__(self, num_runs: int) -> None:
        self.num_waiting = self.num_left = num_runs

    @property
    def is_over(self) -> bool:
        return self.num_left <= 0


class Source:
    """Parts of three runs each, what was done to which, and what is to be held up."""

    def __init__(self, num_runs: int = 3) -> None:
        self.num_runs = num_runs
        self.log: list[str] = []
        self.held: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.contended: set[str] = set()
        self.may_begin = threading.Event()
        self.may_begin.set()
        self.may_help = threading.Event()
        self.may_help.set()
        self.others_are_done = threading.Event()
        self.buffers: set[int] = set()
        self.may_leave = threading.Event()
        self.may_leave.set()

    def begin_part(self, name: str, *, request_bytes: int, wait: bool) -> PartFetch | None:
        self.log.append(f"begin {name}" + " and wait" * wait)
        assert self.may_begin.wait(60)
        if name in self.contended:
            if not wait:
                raise BlockingIOError
            assert self.others_are_done.wait(60)
            return None
        if name in self.failing:
            raise TableError("gone")
        return cast("PartFetch", Part(self.num_runs))

    def help_part(self, name: str, fetch: Any, buffer: memoryview) -> bool:
        fetch.num_waiting -= 1
        self.log.append(f"help {name}")
        self.buffers.add(len(buffer))
        assert self.may_help.wait(60)
        if f"run of {name}" in self.failing:
            fetch.num_left = fetch.num_waiting = 0
            raise TableError("cut off")
        fetch.num_left -= 1
        return True

    def fetching_ahead(self) -> ExitStack:
        stack = ExitStack()
        self.held["made"] += 1
        stack.callback(self.held.update, ["closed"])
        stack.callback(self.may_leave.wait, 60)
        return stack


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.002)


def fetched(names: str, source: Source, *, num_threads: int) -> list[str]:
    ahead = FetchAhead(num_threads=num_threads, request_bytes=100)
    ahead.replace(names, source=source)
    wait_until(lambda: not ahead.is_running)
    assert not any(ahead.expects(name) or ahead.fetch_of(name) for name in names)
    wait_until(lambda: source.held["closed"] == num_threads)
    assert source.held["made"] == num_threads
    return source.log


def test_one_thread_does_all_in_order() -> None:
    source = Source()
    log = fetched("abc", source, num_threads=1)
    assert log == [line for n in "abc" for line in (f"begin {n}", *[f"help {n}"] * 3)]
    assert source.buffers == {100}


@pytest.mark.parametrize("num_threads", [2, 4, 9])
def test_threads_share_the_runs_of_all_parts(num_threads: int) -> None:
    names = "abcdefgh"
    log = fetched(names, Source(), num_threads=num_threads)
    assert Counter(log) == {
        f"{what} {n}": k for n in names for what, k in (("begin", 1), ("help", 3))
    }


def test_all_help_with_one_part() -> None:
    """Each had a part of its own, and the first video waited for all of them."""
    source = Source(num_runs=6)
    source.may_help.clear()
    source.may_begin.clear()
    ahead = FetchAhead(num_threads=4, request_bytes=1)
    ahead.replace("a", source=source)
    wait_until(lambda: source.log == ["begin a"] and source.held["made"] == 4)
    time.sleep(0.1)
    source.may_begin.set()
    wait_until(lambda: source.log.count("help a") == 4)
    source.may_help.set()
    wait_until(lambda: not ahead.is_running)


def test_a_part_is_begun_while_the_one_before_has_runs() -> None:
    """The round trips before a part's first run went by with nothing else to do."""
    source = Source(num_runs=2)
    source.may_help.clear()
    ahead = FetchAhead(num_threads=2, request_bytes=1)
    ahead.replace("abc", source=source)
    wait_until(lambda: len(source.log) == 4)
    assert sorted(source.log) == ["begin a", "begin b", "help a", "help a"]
    source.may_help.set()
    wait_until(lambda: not ahead.is_running)


def test_what_others_fetch_comes_last_and_is_waited_for() -> None:
    """Two processes that waited for each other's parts with runs in hand would wait for ever."""
    source = Source()
    source.contended.update("ac")
    ahead = FetchAhead(num_threads=1, request_bytes=1)
    ahead.replace("abcd", source=source)
    wait_until(lambda: source.log[-1:] == ["begin a and wait"])
    assert source.log == [
        *("begin a", "begin b", *["help b"] * 3, "begin c", "begin d", *["help d"] * 3),
        "begin a and wait",
    ]
    assert ahead.expects("a") and ahead.expects("c") and not ahead.expects("b")
    source.others_are_done.set()
    wait_until(lambda: not ahead.is_running)
    assert source.log[-1] == "begin c and wait"


def test_a_part_that_fails_is_not_expected() -> None:
    source = Source()
    source.failing.update(["a", "run of b"])
    log = fetched("abc", source, num_threads=1)
    assert log == ["begin a", "begin b", "help b", "begin c", *["help c"] * 3]


def test_a_new_order_takes_the_place_of_the_old() -> None:
    """What is on its way comes first: its lock is held. No thread is added to those there are."""
    source = Source()
    source.may_help.clear()
    ahead = FetchAhead(num_threads=2, request_bytes=1)
    ahead.replace("abcdef", source=source)
    wait_until(lambda: source.log.count("help a") == 2)
    ahead.replace("fa", source=source)
    assert ahead.expects("f") and not ahead.expects("d")
    source.may_help.set()
    wait_until(lambda: not ahead.is_running)
    assert source.held["made"] == 2
    assert not {"begin d", "begin e"} & set(source.log)
    assert source.log.count("begin a") == source.log.count("begin f") == 1


def test_a_part_may_fail_while_others_help() -> None:
    source = Source(num_runs=6)
    source.failing.add("run of a")
    source.may_help.clear()
    ahead = FetchAhead(num_threads=3, request_bytes=1)
    ahead.replace("ab", source=source)
    wait_until(lambda: len(source.log) >= 4)
    source.may_help.set()
    wait_until(lambda: not ahead.is_running)
    assert source.log.count("help b") == 6


def test_an_old_order_is_not_waited_for() -> None:
    source = Source()
    source.contended.add("a")
    source.may_help.clear()
    ahead = FetchAhead(num_threads=1, request_bytes=1)
    ahead.replace("ab", source=source)
    wait_until(lambda: "help b" in source.log)
    ahead.replace("c", source=source)
    source.may_help.set()
    wait_until(lambda: not ahead.is_running)
    assert source.log == ["begin a", "begin b", *["help b"] * 3, "begin c", *["help c"] * 3]


def test_it_runs_until_nothing_is_held() -> None:
    """A reader took its own process's lock, about to be let go of, for another that would fetch."""
    source = Source()
    source.may_leave.clear()
    ahead = FetchAhead(num_threads=1, request_bytes=1)
    ahead.replace("a", source=source)
    wait_until(lambda: source.log.count("help a") == 3 and not ahead.expects("a"))
    time.sleep(0.05)
    assert ahead.is_running
    ahead.replace("b", source=source)
    wait_until(lambda: "begin b" in source.log)
    source.may_leave.set()
    wait_until(lambda: not ahead.is_running)
    assert source.log[-1] == "help b" and source.held["made"] == 2
