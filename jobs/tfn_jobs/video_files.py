"""Names and sizes of files, on a disk or in an object store, without opening any."""

import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from pyarrow import fs

from tfn_platform.errors import DataError

NUM_THREADS = 32
NAMES_PER_TASK = 256
MIN_NAMES_TO_LIST = 200


class FoundFile(NamedTuple):
    """A file or folder below the one that was walked."""

    path: str
    """Its name from there on."""
    size_bytes: int | None
    """None for what is no regular file: a folder, a pipe, a link to nothing."""
    is_folder: bool


def local_path(uri: str) -> str:
    """`file://` addresses as paths; others as they are."""
    if not uri.startswith("file://"):
        return uri
    try:
        return str(fs.FileSystem.from_uri(uri)[1])
    except ValueError as error:
        raise DataError(f"{uri}: is no address: {error}") from error


def safe_uri(uri: str) -> str:
    """The same address with spaces and the like written as ``%20``; what is so already stays."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}://{quote(rest, safe='/%?=&:@+~')}" if separator else uri


def walk(folder: str, *, max_depth: int | None) -> Iterator[FoundFile]:
    """Every file and folder below a folder, in no particular order; links are followed.

    Args:
        folder: a path or a URI.
        max_depth: folders to go down from there at most; None goes to the end.

    Raises:
        DataError: there is no such folder, or it or one below cannot be listed.
    """
    try:
        if "://" not in folder:
            yield from _walk_here(folder, "", max_depth, frozenset())
            return
        filesystem, base = _open(folder)
        # Where one level is wanted, the store need not be asked for all that lies deeper.
        selector = fs.FileSelector(base, recursive=max_depth != 0)
        prefix = len(selector.base_dir) + 1
        for info in filesystem.get_file_info(selector):
            is_file = info.type == fs.FileType.File
            path = info.path[prefix:]
            if max_depth is None or path.count("/") <= max_depth:
                yield FoundFile(path, info.size if is_file else None, not is_file)
    except OSError as error:
        raise DataError(f"{folder}: the videos cannot be listed: {error}") from error


def _walk_here(
    folder: str, prefix: str, max_depth: int | None, above: frozenset[tuple[int, int]]
) -> Iterator[FoundFile]:
    """A folder of this machine. pyarrow's own listing leaves out links to nothing."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return  # a link to a folder that this one lies in
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            size, is_folder = _look_at(entry.path)
            yield FoundFile(path, size, is_folder)
            if is_folder and max_depth != 0:
                deeper = None if max_depth is None else max_depth - 1
                yield from _walk_here(entry.path, f"{path}/", deeper, above | {identity})


def _look_at(path: str) -> tuple[int | None, bool]:
    """Bytes of a regular file, and whether it is a folder."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, False
    is_file = stat.S_ISREG(status.st_mode)
    return (status.st_size if is_file else None), stat.S_ISDIR(status.st_mode)


def is_folder(uri: str) -> bool:
    """Whether there is a folder of that name; DataError where the storage cannot be asked."""
    if "://" not in uri:
        return os.path.isdir(uri)
    filesystem, path = _open(uri)
    try:
        return bool(filesystem.get_file_info(path).type == fs.FileType.Directory)
    except OSError as error:
        raise DataError(f"{uri}: cannot be looked at: {error}") from error


def file_sizes(uris: Sequence[str]) -> list[int | None]:
    """Bytes of each file, by many threads at once; None for what is not there or no regular file.

    Raises:
        DataError: an object store cannot be asked.
    """
    by_folder: dict[str, list[str]] = {}
    for uri in uris:
        by_folder.setdefault(uri.rpartition("/")[0], []).append(uri)
    # One request to an object store lists a thousand files of a folder, or asks about one.
    full = {
        folder
        for folder, inside in by_folder.items()
        if "://" in folder and len(inside) >= MIN_NAMES_TO_LIST
    }
    rest = [uri for folder, inside in by_folder.items() if folder not in full for uri in inside]
    begins = range(0, len(rest), NAMES_PER_TASK)
    sizes: dict[str, int | None] = {}
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for found in threads.map(_sizes_in_folder, full, [by_folder[folder] for folder in full]):
            sizes.update(found)
        for found in threads.map(_sizes_of, [rest[b : b + NAMES_PER_TASK] for b in begins]):
            sizes.update(found)
    return [sizes[uri] for uri in uris]


def _sizes_in_folder(folder: str, uris: list[str]) -> dict[str, int | None]:
    filesystem, base = _open(folder)
    try:
        infos = filesystem.get_file_info(fs.FileSelector(base, allow_not_found=True))
    except OSError as error:
        raise DataError(f"{folder}: cannot be looked at: {error}") from error
    found = {info.base_name: info.size for info in infos if info.type == fs.FileType.File}
    return {uri: found.get(unquote(uri.rpartition("/")[2])) for uri in uris}


def _sizes_of(uris: list[str]) -> dict[str, int | None]:
    return {uri: _remote_size(uri) if "://" in uri else _look_at(uri)[0] for uri in uris}


def _remote_size(uri: str) -> int | None:
    filesystem, path = _open(uri)
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        raise DataError(f"{uri}: cannot be looked at: {error}") from error
    return info.size if info.type == fs.FileType.File else None


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path in there."""
    scheme, _, rest = uri.partition("://")
    bucket, slash, path = rest.partition("/")
    filesystem, base = _open_bucket(f"{scheme}://{bucket}")
    return filesystem, base + slash + unquote(path).rstrip("/")


@lru_cache(maxsize=16)
def _open_bucket(root: str) -> tuple[fs.FileSystem, str]:
    """Kept, since a client of an object store takes milliseconds to make."""
    try:
        filesystem, base = fs.FileSystem.from_uri(root)
    except (OSError, ValueError) as error:
        raise DataError(f"{root}: cannot be opened: {error}") from error
    return filesystem, base
