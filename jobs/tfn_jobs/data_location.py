"""Where a data set lies: its annotation and its video files, on a disk or in an object store."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from pyarrow import fs

from tfn_platform.datasets import DATASETS
from tfn_platform.datasets.annotated_video import AnnotatedVideo
from tfn_platform.errors import DataError
from tfn_platform.store import Store, bytes_hash

VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".webm", ".mov", ".gif", ".mpg", ".mpeg", ".ts", ".flv"}


@dataclass(frozen=True)
class DataLocation:
    """Where a data set lies, and in which layout its annotation is."""

    annotation_format: str
    annotations_uri: str
    videos_uri: str
    max_quarantined_share: float

    def fingerprint(self) -> str:
        """Changes when the annotation does, or when a video file comes, goes or changes size."""
        digest = hashlib.sha256()
        for store, name in _annotation_files(self.annotations_uri):
            digest.update(store.read_bytes(name))
        for file_name, size in sorted(video_sizes(self.videos_uri).items()):
            digest.update(f"{file_name}:{size};".encode())
        return digest.hexdigest()[:16]


def read_annotations(location: DataLocation) -> list[AnnotatedVideo]:
    """Read the annotation, a file or (in some layouts) a folder, wherever it lies.

    Raises:
        DataError: it is not there, or does not say what it should.
    """
    try:
        with _local_copy(location.annotations_uri) as path:
            return DATASETS[location.annotation_format](path)
    except OSError as error:
        raise DataError(f"{location.annotations_uri}: cannot be read: {error}") from error


def video_sizes(videos_uri: str) -> dict[str, int]:
    """Bytes of each video file of a folder, by file name; DataError if there is no such folder."""
    store = Store.open(videos_uri)
    try:
        infos = store.filesystem.get_file_info(fs.FileSelector(store.path("")))
    except OSError as error:
        raise DataError(f"{videos_uri}: the videos cannot be listed: {error}") from error
    return {
        info.base_name: info.size
        for info in infos
        if info.type == fs.FileType.File
        and PurePosixPath(info.base_name).suffix.lower() in VIDEO_SUFFIXES
    }


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
