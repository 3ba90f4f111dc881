"""Processor time and peak memory of a driver, the process that owns its stream included.

An extraction's stream belongs to an actor of its own, so that ending it ends all that it began.
What that process does is the driver's work all the same.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OWNER_TITLE = "ray::_StreamOwner"
SECONDS_PER_LOOK = 0.1
LOOKS_PER_SEARCH = 20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """What a driver used.

    Attributes:
        cpu_seconds: of all threads.
        wall_seconds: from beginning to end.
        own_bytes: most of the resident memory that is no other process's, beyond that before:
            what Python, Arrow and Ray allocate.
        shared_bytes: the same of pages of files, and of Ray's object store.
        owner_cpu_seconds: of the process that owns the stream, if there is one.
        owner_bytes: most of its own resident memory.
    """

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    own_bytes: int = 0
    shared_bytes: int = 0
    owner_cpu_seconds: float = 0.0
    owner_bytes: int = 0


@contextmanager
def watched() -> Iterator[Usage]:
    """Look at this process all the time that the block runs; the figures are whole at its end."""
    usage, is_over = Usage(), threading.Event()
    own, shared = _resident("self")
    looking_seconds = 0.0

    def look(owners: set[str]) -> None:
        now_own, now_shared = _resident("self")
        usage.own_bytes = max(usage.own_bytes, now_own - own)
        usage.shared_bytes = max(usage.shared_bytes, now_shared - shared)
        for process in owners:
            usage.owner_bytes = max(usage.owner_bytes, _resident(process)[0])
            usage.owner_cpu_seconds = max(usage.owner_cpu_seconds, _cpu_seconds(process))

    def watch() -> None:
        nonlocal looking_seconds
        looks, owners = 0, set[str]()
        while not is_over.wait(SECONDS_PER_LOOK):
            owners = _owners() if looks % LOOKS_PER_SEARCH == 0 else owners
            looks += 1
            look(owners)
        looking_seconds = time.thread_time()

    thread = threading.Thread(target=watch, daemon=True)
    cpu, wall = time.process_time(), time.monotonic()
    thread.start()
    try:
        yield usage
    finally:
        is_over.set()
        thread.join()
        look(set())
        usage.wall_seconds = time.monotonic() - wall
        usage.cpu_seconds = time.process_time() - cpu - looking_seconds


def _owners() -> set[str]:
    """The processes that own a stream of this one: Ray starts them somewhere below it."""
    found = (path.name for path in Path("/proc").iterdir() if path.name.isdecimal())
    owners = {process for process in found if OWNER_TITLE in _read(process, "cmdline")}
    return {process for process in owners if str(os.getpid()) in _ancestors(process)}


def _ancestors(process: str) -> Iterator[str]:
    while process not in ("", "0"):
        yield process
        process = next(iter(_stat(process)[1:2]), "")


def _resident(process: str) -> tuple[int, int]:
    """Bytes of a process's own memory, and of what it shares; none if it is gone."""
    lines = (line.split() for line in _read(process, "status").splitlines())
    sizes = {line[0]: int(line[1]) << 10 for line in lines if line[0].startswith("Rss")}
    shared = sizes.get("RssFile:", 0) + sizes.get("RssShmem:", 0)
    return sizes.get("RssAnon:", 0), shared


def _cpu_seconds(process: str) -> float:
    """User's and system's time of a process; 0 if it is gone."""
    return sum(map(int, _stat(process)[11:13])) / TICKS_PER_SECOND


def _stat(process: str) -> list[str]:
    """The fields of /proc/…/stat after the name: state, parent, ...; none if it is gone."""
    return _read(process, "stat").rpartition(")")[2].split()


def _read(process: str, name: str) -> str:
    try:
        return Path("/proc", process, name).read_text()
    except OSError:  # it has ended
        return ""
