"""Where a data set lies: its videos and any annotation, on a disk or in an object store."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyarrow import fs

from tfn_jobs.video_listing import LISTED, VideoListing, base_folder, list_videos
from tfn_platform.datasets import DATASETS
from tfn_platform.datasets.annotated_video import AnnotatedVideo
from tfn_platform.errors import DataError
from tfn_platform.store import Store, bytes_hash

ROWS_PER_DIGEST = 1 << 16


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation and its layout."""

    layout: str
    """One of the names in `DATASETS`."""
    uri: str
    """A file or (in some layouts) a folder."""

    def read(self) -> list[AnnotatedVideo]:
        """Read it, wherever it lies.

        Raises:
            DataError: it is not there, or does not say what it should.
        """
        try:
            with _local_copy(self.uri) as path:
                return DATASETS[self.layout](path)
        except OSError as error:
            raise DataError(f"{self.uri}: cannot be read: {error}") from error

    def read_bytes(self) -> Iterator[bytes]:
        """Its content, file by file; DataError if it is not there."""
        try:
            for store, name in _annotation_files(self.uri):
                yield store.read_bytes(name)
        except OSError as error:
            raise DataError(f"{self.uri}: cannot be read: {error}") from error


@dataclass(frozen=True)
class DataLocation:
    """Where a data set lies, and when its videos are good enough.

    Attributes:
        videos: folders, globs, manifests and files; see `video_listing.list_videos`.
        annotation: what says which of them count; None takes all.
        max_quarantined_share: of the videos that may be unusable.
        duration_tolerance: share of the expected duration that a file's may differ by; None does
            not compare.
    """

    videos: tuple[str, ...]
    annotation: AnnotationFile | None = None
    max_quarantined_share: float = 0.1
    duration_tolerance: float | None = 0.1

    @cached_property
    def listing(self) -> VideoListing:
        """All videos there, as they were when first asked for.

        Raises:
            DataError: they cannot be listed, there are none, or without an annotation two have the
                same id.
        """
        listing = list_videos(self.videos)
        if self.annotation is None:
            listing.check_unique()
        return listing

    def fingerprint(self) -> str:
        """Changes when the annotation does, or when a video comes, goes or changes size."""
        digest = hashlib.sha256()
        for content in self.annotation.read_bytes() if self.annotation else ():
            digest.update(content)
        for batch in self.listing.rows.to_batches(max_chunksize=ROWS_PER_DIGEST):
            for name, column in zip(LISTED.names, batch.columns, strict=True):
                text = "\0".join(map(str, column.to_pylist()))
                digest.update(f"{name}:{len(text)}:{text};".encode())
        return digest.hexdigest()[:16]

    def locate(self, annotated: Sequence[AnnotatedVideo]) -> pa.Table:
        """Find the file of each annotated video, by its id or its stem, or ``v_`` and that.

        Returns:
            Rows in the schema LISTED, in the order of their ids; a file that is missing keeps the
            name that it should have.

        Raises:
            DataError: two files could be meant.
        """
        listed = self.listing.rows
        uris, sizes = listed["uri"].to_pylist(), listed["size_bytes"].to_pylist()
        seconds = listed["expected_seconds"].to_pylist()
        numbers = _Numbers(listed["video_id"].to_pylist())
        missing_in = base_folder(self.videos[0])
        rows = []
        for video in sorted(annotated, key=lambda video: video.video_id):
            expected = video.duration_seconds
            found = numbers.of(video.video_id) or numbers.of(f"v_{video.video_id}")
            if len(found) > 1:
                raise DataError(
                    f"annotated video {video.video_id!r} could be {uris[found[0]]} or "
                    f"{uris[found[1]]}; remove one of them, or name all files in a manifest "
                    "(.csv or .parquet) that gives each its own `video_id`"
                )
            uri, size = f"{missing_in}/{video.video_id}", None
            for number in found:
                uri, size = uris[number], sizes[number]
                expected = seconds[number] if expected is None else expected
            rows.append((video.video_id, uri, video.subset, size, expected))
        columns = zip(*rows, strict=True) if rows else [[]] * len(LISTED)
        return pa.table([list(column) for column in columns], schema=LISTED)


class _Numbers:
    """Which listed videos have an id, or where none has, which have it as their file's stem."""

    def __init__(self, video_ids: list[str]) -> None:
        self._by_id: dict[str, list[int]] = {}
        self._by_stem: dict[str, list[int]] = {}
        for number, video_id in enumerate(video_ids):
            self._by_id.setdefault(video_id, []).append(number)
            self._by_stem.setdefault(video_id.rpartition("/")[2], []).append(number)

    def of(self, name: str) -> list[int]:
        return self._by_id.get(name) or self._by_stem.get(name) or []


def file_hash(uri: str) -> str:
    """A hash of a file's content, wherever it lies."""
    store, name = split_uri(uri)
    try:
        return bytes_hash(store.read_bytes(name))
    except OSError as error:
        raise DataError(f"{uri}: cannot be read: {error}") from error


def split_uri(uri: str) -> tuple[Store, str]:
    """A file's folder, as a store, and its name."""
    parent, _, name = uri.rpartition("/")
    return Store.open(parent), name


def _annotation_files(uri: str) -> list[tuple[Store, str]]:
    """The annotation's file, or the files of its folder in the order of their names."""
    store, name = split_uri(uri)
    if store.filesystem.get_file_info(store.path(name)).type != fs.FileType.Directory:
        return [(store, name)]
    folder = Store.open(uri)
    return [(folder, file_name) for file_name in folder.list_files("")]


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """The annotation as a path of this machine; one in an object store is copied for a while."""
    if "://" not in uri:
        yield Path(uri)
        return
    files = _annotation_files(uri)
    with TemporaryDirectory() as temporary:
        for store, name in files:
            (Path(temporary) / name).write_bytes(store.read_bytes(name))
        is_file = len(files) == 1 and files[0][1] == uri.rpartition("/")[2]
        yield Path(temporary) / files[0][1] if is_file else Path(temporary)
