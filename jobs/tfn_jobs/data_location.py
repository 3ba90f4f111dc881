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
from tfn_platform.store import Store

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
        store, name = split_uri(self.annotations_uri)
        digest = hashlib.sha256(store.read_bytes(name))
        for file_name, size in sorted(video_sizes(self.videos_uri).items()):
            digest.update(f"{file_name}:{size};".encode())
        return digest.hexdigest()[:16]


def read_annotations(location: DataLocation) -> list[AnnotatedVideo]:
    """Read the annotation, wherever it lies."""
    with _local_copy(location.annotations_uri) as path:
        return DATASETS[location.annotation_format](path)


def video_sizes(videos_uri: str) -> dict[str, int]:
    """Bytes of each video file of a folder, by file name."""
    store = Store.open(videos_uri)
    selector = fs.FileSelector(store.path(""))
    return {
        info.base_name: info.size
        for info in store.filesystem.get_file_info(selector)
        if info.type == fs.FileType.File
        and PurePosixPath(info.base_name).suffix.lower() in VIDEO_SUFFIXES
    }


def split_uri(uri: str) -> tuple[Store, str]:
    """A file's folder, as a store, and its name."""
    parent, _, name = uri.rpartition("/")
    return Store.open(parent), name


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    if "://" not in uri:
        yield Path(uri)
        return
    store, name = split_uri(uri)
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(store.read_bytes(name))
        yield path
