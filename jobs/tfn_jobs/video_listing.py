"""Which videos a data set holds: folders, globs, files and manifests become one Arrow table.

A listing stays in columns throughout, so that half a million videos cost some 100 MB, and looks at
names and sizes only. Nothing is opened here: whatever is listed is tried later.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from posixpath import splitext
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc

from tfn_jobs.glob_pattern import glob_filter, is_glob, split_glob
from tfn_jobs.video_files import file_sizes, is_folder, local_path, safe_uri, walk
from tfn_jobs.video_manifest import MANIFEST_SUFFIXES, ROWS_PER_BATCH, map_texts, read_manifest
from tfn_platform.errors import DataError
from tfn_platform.local_walk import FoundFile

VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".webm", ".mov", ".gif", ".mpg", ".mpeg", ".ts", ".flv"}
VIDEO_SUFFIXES |= {".m4v", ".mts", ".m2ts", ".wmv", ".3gp", ".ogv", ".vob"}
NO_SUBSET = "all"

LISTED = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        # Null where there is no regular file of that name, or none that can be asked.
        pa.field("size_bytes", pa.int64()),
        # What a manifest or an annotation says; null where they are silent.
        pa.field("expected_seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class VideoListing:
    """What was found: `rows` in the schema LISTED, and how many files were passed over."""

    rows: pa.Table
    """In the order of their ids."""
    num_passed_over: int
    """Files of folders whose names are hidden or lack a video's ending."""

    def check_unique(self) -> None:
        """Refuse a video_id that two files have; DataError names both and says what would do."""
        ids = self.rows["video_id"]
        if not pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
            return  # counting takes far more memory
        counts = ids.value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if not len(twice):
            return
        video_id = min(twice.field("values").to_pylist())
        same = self.rows.filter(pc.equal(self.rows["video_id"], video_id))
        first, second = same["uri"].to_pylist()[:2]
        raise DataError(
            f"video ids must be unique, but {len(twice)} are of several files; {video_id!r} is "
            f"both {first} and {second}; remove one of them, or name all files in a manifest "
            "(.csv or .parquet) that gives each its own `video_id`"
        )


def list_videos(sources: Sequence[str]) -> VideoListing:
    """List what the sources of a data set name, in the order of their ids.

    Args:
        sources: folders, globs, manifests and files, as `data_specs.VideosDataSpec` describes them.

    Raises:
        DataError: a folder, a glob's files or a manifest are not there, or a manifest, a glob or an
            address is wrong.
    """
    listed, num_passed_over = [], 0
    files: list[str] = []
    for source in map(local_path, sources):
        uri = safe_uri(source)  # refuses options, which an address of any kind may have
        if _ending(source) in MANIFEST_SUFFIXES:
            listed.append(_of_manifest(source))
        elif is_glob(source) and not os.path.lexists(source):
            listed.append(_of_glob(source))
        elif _ending(source) not in VIDEO_SUFFIXES and is_folder(source):
            in_folder, others = _of_folder(source)
            listed.append(in_folder)
            num_passed_over += others
        else:
            files.append(uri)
    if files:
        listed.append(_of_files(files))
    rows = pa.concat_tables(listed).sort_by([("video_id", "ascending"), ("uri", "ascending")])
    if not rows.num_rows:
        raise DataError(
            f"{', '.join(sources)}: there is no video, but {num_passed_over} other files; a video "
            f"has one of the endings {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return VideoListing(rows, num_passed_over)


def base_folder(source: str) -> str:
    """The folder that a source's files lie below."""
    if is_glob(source):
        return safe_uri(split_glob(source)[0])
    is_file = _ending(source) in {*MANIFEST_SUFFIXES, *VIDEO_SUFFIXES}
    return safe_uri(source.rpartition("/")[0] if is_file else source)


def _of_folder(folder: str) -> tuple[pa.Table, int]:
    """Everything below a folder that has a video's ending; also how many files have not."""
    found, num_passed_over = _Found(safe_uri(folder)), 0
    for file in walk(folder, max_depth=None):
        is_hidden = f"/{file.path}".find("/.") >= 0
        if _ending(file.path) in VIDEO_SUFFIXES and not is_hidden:
            found.add(file)
        elif not file.is_folder:
            num_passed_over += 1
    return found.table(), num_passed_over


def _of_glob(pattern: str) -> pa.Table:
    """Everything that matches, whatever its ending; of folders only those with a video's ending."""
    folder, rest = split_glob(pattern)
    matches = glob_filter(rest)
    depth = None if "**" in rest else rest.count("/")
    found = _Found(safe_uri(folder))
    for file in walk(folder, max_depth=depth):
        is_other_folder = file.is_folder and _ending(file.path) not in VIDEO_SUFFIXES
        if matches(file.path) and not is_other_folder:
            found.add(file)
    rows = found.table()
    if not rows.num_rows:
        raise DataError(f"{pattern}: no file matches; `**/` stands for any folders in between")
    return rows


def _of_files(uris: list[str]) -> pa.Table:
    """Files that were named one by one, whatever their ending; each is known by its stem."""
    places = pa.chunked_array([pa.array(uris, pa.string())])
    return _table(map_texts(places, _stem), places, _sizes(places))


def _of_manifest(source: str) -> pa.Table:
    """A manifest's rows; what it does not say is filled in."""
    rows = read_manifest(source)
    given = dict(zip(rows.schema.names, rows.columns, strict=True))
    uris = given["uri"]
    sizes = _sizes(uris)
    subsets = pc.fill_null(given["subset"], NO_SUBSET) if "subset" in given else None
    ids = given["video_id"] if "video_id" in given else map_texts(uris, _stem)
    return _table(ids, uris, sizes, subsets=subsets, seconds=given.get("duration_seconds"))


def _table(
    ids: Any, uris: Any, sizes: Any, *, subsets: Any = None, seconds: Any = None
) -> pa.Table:
    """Columns in the schema LISTED; what is not known is filled in."""
    subsets = pa.repeat(NO_SUBSET, len(sizes)) if subsets is None else subsets
    seconds = pa.nulls(len(sizes), pa.float64()) if seconds is None else seconds
    return pa.table([ids, uris, subsets, sizes, seconds], schema=LISTED)


def _sizes(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bytes of each file; null for what is not there or no regular file.

    Some at a time, as in `map_texts`; but all at once where some lie in an object store, whose
    folders are then listed once for all of their files.
    """
    is_remote = pc.any(pc.match_substring(uris, "://")).as_py()
    at_once = len(uris) if is_remote else ROWS_PER_BATCH
    sizes = [
        pa.array(file_sizes(uris.slice(begin, at_once).to_pylist()), pa.int64())
        for begin in range(0, len(uris), at_once)
    ]
    return pa.chunked_array(sizes, pa.int64())


def _stem(uri: str) -> str:
    """The last part of a place, decoded if it is an address, less its ending."""
    name = uri.rpartition("/")[2]
    return splitext(unquote(name) if "://" in uri else name)[0]


@dataclass
class _Found:
    """Files on their way into a table, without ever being many Python objects."""

    folder: str
    tables: list[pa.Table] = field(default_factory=lambda: [LISTED.empty_table()])
    rows: list[tuple[str, str, int | None]] = field(default_factory=list)

    def add(self, file: FoundFile) -> None:
        path = _text(file.path)
        below = quote(path) if "://" in self.folder else path
        uri = f"{self.folder.rstrip('/')}/{below}"
        self.rows.append((splitext(path)[0], uri, file.size_bytes))
        if len(self.rows) == ROWS_PER_BATCH:
            self._pack()

    def table(self) -> pa.Table:
        self._pack()
        return pa.concat_tables(self.tables)

    def _pack(self) -> None:
        ids, uris = [row[0] for row in self.rows], [row[1] for row in self.rows]
        self.tables.append(_table(ids, uris, [row[2] for row in self.rows]))
        self.rows = []


def _ending(name: str) -> str:
    return splitext(name)[1].lower()


def _text(path: str) -> str:
    r"""A name as tables can hold it; bytes that are no text become ``\x..``, and are not found."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
