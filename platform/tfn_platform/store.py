"""Where every table, checkpoint and report lies: one storage root, local or in an object store."""

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs

from tfn_platform.errors import ResourceError

DONE_FILE = "done.json"
TEMPORARY_SUFFIX = ".being-written"
MAX_TEMPORARY_SECONDS = 86_400.0
"""No write of one file takes that long."""


def bytes_hash(data: bytes) -> str:
    """A hash of a file's content."""
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """One storage root: a folder, ``s3://…`` or ``gs://…``. Cheap to send to a worker."""

    root: str

    @classmethod
    def open(cls, root: str) -> "Store":
        """Make a store of a folder (relative ones are taken from the working folder) or a URI."""
        if "://" in root and not root.startswith("file://"):
            return cls(root.rstrip("/"))
        return cls(str(Path(root.removeprefix("file://")).expanduser().resolve()))

    @cached_property
    def _filesystem_and_base(self) -> tuple[pyarrow.fs.FileSystem, str]:
        try:
            filesystem, base = pyarrow.fs.FileSystem.from_uri(self.root)
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            raise ResourceError(
                f"storage root {self.root!r} cannot be opened: {error}; "
                "a folder, s3://bucket/prefix or gs://bucket/prefix would do"
            ) from error
        return filesystem, base

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """The pyarrow file system that the root lies on."""
        return self._filesystem_and_base[0]

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path, for `filesystem`, of a name inside the root; "" is the root itself.

        Raises:
            ValueError: the name is absolute or leads out of the root.
        """
        parts = PurePosixPath(relative)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"a path must stay inside the storage root, got {relative!r}")
        base = self._filesystem_and_base[1]
        return f"{base}/{parts}" if parts.parts else base

    def uri(self, relative: str) -> str:
        """The full name of a path inside the root, as a user would write it."""
        return f"{self.root}/{relative}"

    def exists(self, relative: str) -> bool:
        """Whether there is a file or folder of this name."""
        info = self.filesystem.get_file_info(self.path(relative))
        return bool(info.type != pyarrow.fs.FileType.NotFound)

    def list_files(self, folder: str) -> list[str]:
        """The names of the files right in a folder, sorted; none when there is no such folder."""
        selector = pyarrow.fs.FileSelector(self.path(folder), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(
            info.base_name
            for info in infos
            if info.type == pyarrow.fs.FileType.File and not info.base_name.startswith(".")
        )

    def read_bytes(self, relative: str) -> bytes:
        """The whole content of a file."""
        with self.filesystem.open_input_stream(self.path(relative)) as stream:
            return bytes(stream.read())

    def write_bytes(self, relative: str, data: bytes | memoryview) -> None:
        """Write a file that appears whole or not at all, and overwrites one of the same name.

        A folder gets a temporary file and a rename; an object store shows an object once closed.
        """
        path = self.path(relative)
        if self.is_local:
            _replace_local_file(Path(path), data)
            return
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(data)

    def delete_file(self, relative: str) -> None:
        """Delete a file if it is there."""
        if self.exists(relative):
            self.filesystem.delete_file(self.path(relative))

    def read_json(self, relative: str) -> Any:
        """A JSON file's content."""
        return json.loads(self.read_bytes(relative))

    def write_json(self, relative: str, value: Any) -> None:
        """Write a JSON file, atomically, with sorted keys so that equal values give equal bytes."""
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
        self.write_bytes(relative, text.encode())

    def stage(self, name: str, key: str) -> "StageFolder":
        """The folder of one stage under one key."""
        return StageFolder(self, name, key)

    def pipeline_record(self, pipeline: str) -> str:
        """What the last run of a pipeline was made of; `tfn plan` explains differences from it."""
        return f"pipelines/{pipeline}.json"


@dataclass(frozen=True)
class StageFolder:
    """What one stage made, under ``stages/<name>/<key>/``. It counts only once `is_done`."""

    store: Store
    name: str
    key: str

    @property
    def relative(self) -> str:
        """The folder's name inside the root."""
        return f"stages/{self.name}/{self.key}"

    def file(self, name: str) -> str:
        """A file's name inside the root."""
        return f"{self.relative}/{name}"

    @property
    def uri(self) -> str:
        """The folder as a user would write it."""
        return self.store.uri(self.relative)

    @property
    def weights(self) -> str:
        """The best weights of a trained stage."""
        return self.file("weights.pt")

    @property
    def training_state(self) -> str:
        """What a killed training continues from."""
        return self.file("training_state.pt")

    @property
    def history(self) -> str:
        """The metrics of each epoch of a trained stage."""
        return self.file("history.json")

    @property
    def metrics(self) -> str:
        """The measured figures of a stage."""
        return self.file("metrics.json")

    def table(self, name: str) -> str:
        """The folder of one table's Parquet files."""
        return self.file(name)

    @property
    def is_done(self) -> bool:
        """Whether the stage has been committed: everything in the folder is there and final."""
        return self.store.exists(self.file(DONE_FILE))

    def read_done(self) -> dict[str, Any]:
        """What was written down at the commit."""
        record: dict[str, Any] = self.store.read_json(self.file(DONE_FILE))
        return record

    def commit(self, record: dict[str, Any]) -> None:
        """Declare the stage finished. Nothing in the folder may change from here on."""
        self.store.write_json(self.file(DONE_FILE), record)


def _replace_local_file(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    descriptor, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX
    )
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:  # also a Ctrl-C must leave no half-written file behind
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def _sweep(folder: Path) -> None:
    """Delete what killed writers left in a folder, whatever it was to be called; once a process."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        # Another process may sweep as well, or own the file: no reason not to write.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > MAX_TEMPORARY_SECONDS:
                path.unlink()
