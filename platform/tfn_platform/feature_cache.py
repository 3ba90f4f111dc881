"""A folder of bounded size on a local disk for parts of remote tables, shared by processes."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOCK_SUFFIX = ".lock"
IN_USE_FILE = ".in_use"
AHEAD_FILE = ".ahead"
NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class FeatureCache:
    """A folder on a local disk for parts of remote tables.

    Attributes:
        folder: made where it is missing; may be shared by processes and data sets. It should hold
            nothing else.
        max_bytes: of all files in it. Data sets that no process uses make room for others.
        num_threads: requests in which a process fetches ahead at the same time.
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
        with locked(self.folder / LOCK_SUFFIX):
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


def reserve(descriptor: int, num_bytes: int) -> None:
    """Make a file of so many bytes, with room taken on the disk where that can be done."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
            return
        except OSError as error:
            if error.errno in NO_ROOM_ERRORS:
                raise
    os.truncate(descriptor, num_bytes)


@contextmanager
def locked(path: Path, *, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock file, which is made where it is missing; `mode` is that of `flock`."""
    with path.open("ab") as stream:
        fcntl.flock(stream, mode)
        try:
            yield
        finally:
            # Said aloud: a process forked meanwhile holds a copy of the file that closing leaves.
            fcntl.flock(stream, fcntl.LOCK_UN)
