"""Where each video's foreign features lie: a file a video, or many videos in a file."""

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from pyarrow import fs

from tfn_platform.errors import DataError
from tfn_platform.feature_table import Values
from tfn_platform.foreign_features import FORMATS, ArrayFile
from tfn_platform.foreign_features.matrix import MatrixLayout, to_matrix
from tfn_platform.local_walk import walk_local
from tfn_platform.store import Store

VIDEO_ID = "{video_id}"
FINGERPRINT_BYTES = 1 << 16
# On an object store each file is a few round trips.
REMOTE_THREADS = 32
_PATTERN_PARTS = {"**/": "(?:.*/)?", "*": "[^/]*", VIDEO_ID: "(?P<video_id>[^/]+)"}


@dataclass(frozen=True)
class Place:
    """The file of one video's features, and the names of its arrays there.

    No names: the one array that the file holds.
    """

    file: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class FeatureSource:
    """All that was found, and nothing of it read yet.

    Attributes:
        store: the folder in which the files lie.
        format: one of `FORMATS`.
        places: where each video's features are, in the order in which they are to be read.
        num_other_files: files of the folder that the pattern does not take.
        fingerprint: changes when a file that is taken comes, goes, is written again or begins or
            ends with other bytes; a folder that is moved as it is keeps it.
    """

    store: Store
    format: str
    places: Mapping[str, Place]
    num_other_files: int
    fingerprint: str


def find_features(
    uri: str, *, format_name: str, files: str | None = None, keys: tuple[str, ...] = ()
) -> FeatureSource:
    """List a folder of foreign features, or take a single file.

    Args:
        uri: the folder, which is searched with all below it, or the file.
        format_name: one of `FORMATS`.
        files: which files, from the folder on, as in ``**/v_{video_id}.npy``; by default all with
            an ending of the format. ``{video_id}`` is what becomes the video's name, ``*`` any
            characters but a slash, ``**/`` any folders.
        keys: names of a video's arrays inside its file. With ``{video_id}`` in them, a file holds
            many videos, and `files` has none.

    Raises:
        DataError: there is no such folder or file, nothing fits, or two places hold one video.
    """
    has_many = bool(keys) and all(VIDEO_ID in key for key in keys)
    store, infos = _list(uri)
    patterns = [files] if files else _default_patterns(format_name, has_many=has_many)
    matches = {
        name: match
        for name in sorted(infos)
        if (match := _first_match(patterns, name, one_id=not has_many))
    }
    if not matches:
        raise DataError(f"{uri}: none of its {len(infos)} files fits {' or '.join(patterns)}")
    if has_many:
        found = _many_videos(store, matches, format_name=format_name, keys=keys)
    else:
        found = ((match["video_id"], Place(name, keys)) for name, match in matches.items())
    places = _without_duplicates(found, uri)
    if not has_many:
        places = dict(sorted(places.items()))
    fingerprint = _fingerprint(store, [(name, infos[name]) for name in matches])
    return FeatureSource(store, format_name, places, len(infos) - len(matches), fingerprint)


def iter_features(
    source: FeatureSource, layout: MatrixLayout, *, video_ids: Iterable[str] | None = None
) -> Iterator[tuple[str, Values | DataError]]:
    """The features of each video [T, F], one at a time, or why they cannot be used.

    Args:
        source: where they lie.
        layout: how they are to be read.
        video_ids: only these; None is all.
    """
    wanted = None if video_ids is None else set(video_ids)
    chosen = [
        (video_id, place)
        for video_id, place in source.places.items()
        if wanted is None or video_id in wanted
    ]
    for file, group in groupby(chosen, key=lambda entry: entry[1].file):
        entries = deque(group)
        try:
            with open_arrays(source.store, file, format_name=source.format) as arrays:
                while entries:
                    video_id, place = entries.popleft()
                    yield video_id, _read(arrays, place, layout=layout)
        except DataError as error:
            for video_id, _ in entries:
                yield video_id, error


@contextmanager
def open_arrays(store: Store, relative: str, *, format_name: str) -> Iterator[ArrayFile]:
    """Open one file of foreign features; DataError if it cannot be opened as this format."""
    path = store.path(relative)
    try:
        # A pipe would be waited at for ever.
        if store.is_local and store.filesystem.get_file_info(path).type != fs.FileType.File:
            raise DataError(f"{relative}: cannot be opened: no regular file, or a link to none")
        stream = store.filesystem.open_input_file(path)
    except OSError as error:
        raise DataError(f"{relative}: cannot be opened: {error}") from error
    try:
        with stream, FORMATS[format_name].open(stream) as arrays:
            yield arrays
    except (DataError, OSError) as error:
        raise DataError(f"{relative}: {error}") from error


def _read(arrays: ArrayFile, place: Place, *, layout: MatrixLayout) -> Values | DataError:
    try:
        names = place.keys or _only_name(arrays)
        missing = [name for name in names if name not in arrays.name_set]
        if missing:
            raise DataError(f"has no array {missing[0]!r}; it has: {arrays.listing()}")
        return to_matrix([arrays.read(name) for name in names], layout)
    except (DataError, OSError) as error:
        return DataError(f"{place.file}: {error}")


def _only_name(arrays: ArrayFile) -> tuple[str, ...]:
    if len(arrays.names) != 1:
        raise DataError(
            f"must hold one array, or `keys` say which; it has: {arrays.listing()}. A file of many "
            'videos needs `keys: ["{video_id}"]` or the like'
        )
    return arrays.names


def _list(uri: str) -> tuple[Store, dict[str, fs.FileInfo]]:
    store = Store.open(uri)
    try:
        info = store.filesystem.get_file_info(store.path(""))
        if info.type == fs.FileType.File:
            parent, _, name = store.root.rpartition("/")
            return Store.open(parent or "/"), {name: info}
        infos = _list_local(store) if store.is_local else _list_remote(store)
    # A name whose bytes are no text cannot become a video's.
    except (OSError, UnicodeError) as error:
        raise DataError(f"{uri}: cannot be listed: {error}") from error
    base = PurePosixPath(store.path(""))
    return store, {
        PurePosixPath(info.path).relative_to(base).as_posix(): info
        for info in infos
        if not info.base_name.startswith(".")
    }


def _list_local(store: Store) -> list[fs.FileInfo]:
    """All but folders; what is no file is refused when it is opened."""
    names = [found.path for found in walk_local(store.path("")) if not found.is_folder]
    infos: list[fs.FileInfo] = store.filesystem.get_file_info([store.path(name) for name in names])
    return infos


def _list_remote(store: Store) -> list[fs.FileInfo]:
    infos = store.filesystem.get_file_info(fs.FileSelector(store.path(""), recursive=True))
    return [info for info in infos if info.type == fs.FileType.File]


def _fingerprint(store: Store, files: Sequence[tuple[str, fs.FileInfo]]) -> str:
    digest = hashlib.sha256()
    with ThreadPoolExecutor(1 if store.is_local else REMOTE_THREADS) as threads:
        hashes = threads.map(lambda file: _hash_of_ends(store, file[1]), files)
        for (name, info), ends in zip(files, hashes, strict=True):
            digest.update(f"{name}:{info.size}:{info.mtime_ns}:{ends};".encode())
    return digest.hexdigest()[:16]


def _hash_of_ends(store: Store, info: fs.FileInfo) -> str:
    """A hash of the first and last 64 KiB of a file; "" for one that reading will refuse."""
    if info.type != fs.FileType.File:
        return ""
    try:
        with store.filesystem.open_input_file(info.path) as stream:
            digest = hashlib.sha256(stream.read(FINGERPRINT_BYTES))
            stream.seek(max(stream.tell(), info.size - FINGERPRINT_BYTES))
            digest.update(stream.read(FINGERPRINT_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()


def _default_patterns(format_name: str, *, has_many: bool) -> list[str]:
    stem = "*" if has_many else VIDEO_ID
    return [f"**/{stem}{ending}" for ending in FORMATS[format_name].endings]


def _first_match(patterns: list[str], name: str, *, one_id: bool) -> re.Match[str] | None:
    for pattern in patterns:
        if pattern.count(VIDEO_ID) != int(one_id):
            raise DataError(
                f"files {pattern!r} must hold {VIDEO_ID} {'once' if one_id else 'nowhere'}, as "
                f"`keys` {'do not hold it' if one_id else 'hold it'}"
            )
        if match := _regex(pattern).fullmatch(name):
            return match
    return None


def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\{video_id\})", pattern)
    return re.compile("".join(_PATTERN_PARTS.get(part) or re.escape(part) for part in parts))


def _many_videos(
    store: Store, files: Iterable[str], *, format_name: str, keys: tuple[str, ...]
) -> Iterator[tuple[str, Place]]:
    first = re.compile("(.+)".join(map(re.escape, keys[0].split(VIDEO_ID, 1))))
    for file in files:
        try:
            with open_arrays(store, file, format_name=format_name) as arrays:
                names = sorted(arrays.names)
                listing = arrays.listing()
        except DataError as error:
            raise DataError(f"{store.root}/{error}") from error
        found = [match[1] for name in names if (match := first.fullmatch(name))]
        if not found:
            raise DataError(f"{store.uri(file)}: no array fits {keys[0]!r}; it has: {listing}")
        for video_id in found:
            yield video_id, Place(file, tuple(key.replace(VIDEO_ID, video_id) for key in keys))


def _without_duplicates(found: Iterable[tuple[str, Place]], uri: str) -> dict[str, Place]:
    places: dict[str, Place] = {}
    twice: list[str] = []
    for video_id, place in found:
        if video_id in places:
            twice.append(f"{video_id} in {places[video_id].file} and {place.file}")
        places.setdefault(video_id, place)
    if twice:
        raise DataError(
            f"{uri}: {len(twice)} videos are there twice: {'; '.join(twice[:5])}. A narrower "
            "`files`, such as training/{video_id}.npy, takes one of each"
        )
    return places
