"""Every file and folder below a folder of this machine, whatever it is and wherever links lead."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple


class FoundFile(NamedTuple):
    """A file or folder below the one that was walked."""

    path: str
    """Its name from there on."""
    size_bytes: int | None
    """None for what is no regular file: a folder, a pipe, a link to nothing."""
    is_folder: bool


def walk_local(folder: str, *, max_depth: int | None = None) -> Iterator[FoundFile]:
    """All that lies below a folder, in no particular order; links are followed.

    pyarrow's own listing leaves out links to nothing, and goes into a link to a folder above
    itself until a path is too long.

    Args:
        folder: a path.
        max_depth: folders to go down from there at most; None goes to the end.

    Raises:
        OSError: there is no such folder, or it or one below cannot be listed.
    """
    return _walk(folder, "", max_depth, frozenset())


def _walk(
    folder: str, prefix: str, max_depth: int | None, above: frozenset[tuple[int, int]]
) -> Iterator[FoundFile]:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return  # a link to a folder that this one lies in
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            size, is_folder = look_at(entry.path)
            yield FoundFile(path, size, is_folder)
            if is_folder and max_depth != 0:
                deeper = None if max_depth is None else max_depth - 1
                yield from _walk(entry.path, f"{path}/", deeper, above | {identity})


def look_at(path: str) -> tuple[int | None, bool]:
    """Bytes of a regular file, else None; and whether it is a folder."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, False
    is_file = stat.S_ISREG(status.st_mode)
    return (status.st_size if is_file else None), stat.S_ISDIR(status.st_mode)
