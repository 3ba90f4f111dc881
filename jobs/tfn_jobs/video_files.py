"""Names and sizes of files, on a disk or in an object store, without opening any."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from urllib.parse import quote, unquote

from pyarrow import fs

from tfn_platform.errors import DataError
from tfn_platform.local_walk import FoundFile, look_at, walk_local

NUM_THREADS = 32
NAMES_PER_TASK = 256
MIN_NAMES_TO_LIST = 200


def local_path(uri: str) -> str:
    """`file://` addresses as paths; others as they are."""
    if not uri.startswith("file://"):
        return uri
    try:
        return str(fs.FileSystem.from_uri(uri)[1])
    except ValueError as error:
        raise DataError(f"{uri}: is no address: {error}") from error


def safe_uri(uri: str) -> str:
    """The same address with spaces and the like written as ``%20``; what is so already stays.

    Raises:
        DataError: it has options.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if "?" in rest:
        raise DataError(
            f"{uri}: options after a question mark are not read; the variables AWS_REGION and "
            "AWS_ENDPOINT_URL of the environment say where a store lies, and a question mark in a "
            "name is written as %3F"
        )
    return f"{scheme}://{quote(rest, safe='/%=&:@+~')}"


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
            yield from walk_local(folder, max_depth=max_depth)
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


def is_folder(uri: str) -> bool:
    """Whether there is a folder of that name; DataError where the storage cannot be asked."""
    if "://" not in uri:
        return look_at(uri)[1]
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
    return {uri: _remote_size(uri) if "://" in uri else look_at(uri)[0] for uri in uris}


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
