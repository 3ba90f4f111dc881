"""Open a video file and find its picture stream; every way to fail has a reason."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition
from pyarrow import fs

from tfn_platform.errors import TfnError
from tfn_platform.quarantine_reason import QuarantineReason


class VideoError(TfnError):
    """A video that cannot be used: `reason` for the table, `detail` for the reader."""

    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        """Keep both as `args`, so that the error survives pickling."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Reason and detail in one line."""
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class VideoSource:
    """An open container and the stream of it that holds the pictures."""

    uri: str
    container: av.container.InputContainer
    stream: av.VideoStream

    @property
    def time_base(self) -> Fraction:
        """Seconds a unit of the stream's timestamps."""
        return Fraction(self.stream.time_base or Fraction(1, 1))

    @property
    def has_presentation_times(self) -> bool:
        """False for avi: it stores decoding order only, and what is made up from it may be wrong.

        (In files with packed B-frames the made-up times run backwards.)
        """
        return self.container.format.name != "avi"

    @property
    def can_seek(self) -> bool:
        """Whether the container's own index leads to true key frames."""
        return self.container.format.name.startswith(("mov,", "matroska"))

    def declared_seconds(self) -> Fraction | None:
        """How long the file says that the pictures last; None where it does not say."""
        stream = self.stream
        if stream.duration:
            return stream.duration * self.time_base
        if "DURATION" in stream.metadata:
            end = _parse_clock(stream.metadata["DURATION"])
            return None if end is None else end - (stream.start_time or 0) * self.time_base
        if len(self.container.streams) == 1 and self.container.duration:
            return Fraction(self.container.duration, av.time_base)
        return None


@contextmanager
def open_video(uri: str) -> Iterator[VideoSource]:
    """Open a local path or any address that pyarrow knows (s3://, gs://, file://).

    Raises VideoError for a file that is not usable; OSError where the storage fails, since that
    is no fault of the file and may be gone at the next attempt.
    """
    with _open_bytes(uri) as file:
        try:
            # An innocent-looking file may be a playlist that names others: open none of them.
            container = av.open(file, options={"protocol_whitelist": "none"})
        except av.FFmpegError as error:
            raise VideoError(QuarantineReason.NOT_A_VIDEO, f"{uri}: {error.strerror}") from error
        with container:
            pictures = [
                stream
                for stream in container.streams.video
                if not stream.disposition & Disposition.attached_pic
            ]
            if not pictures:
                raise VideoError(
                    QuarantineReason.NO_VIDEO_STREAM,
                    f"{uri}: {len(container.streams)} streams, none of them video",
                )
            stream = pictures[0]
            if stream.codec_context is None:
                raise VideoError(
                    QuarantineReason.DECODER_ERROR, f"{uri}: no decoder for its video stream"
                )
            stream.codec_context.thread_count = 1
            yield VideoSource(uri, container, stream)


@contextmanager
def _open_bytes(uri: str) -> Iterator[Any]:
    """Open the file for reading bytes, after the checks that need no decoder."""
    try:
        if "://" in uri:
            filesystem, path = fs.FileSystem.from_uri(uri)
            info = filesystem.get_file_info(path)
            if info.type == fs.FileType.NotFound:
                raise FileNotFoundError(uri)
            _check_file(uri, info.type == fs.FileType.File, info.size)
            file = filesystem.open_input_file(path)
        else:
            status = os.stat(uri)
            _check_file(uri, stat.S_ISREG(status.st_mode), status.st_size)
            file = open(uri, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise VideoError(QuarantineReason.MISSING_FILE, f"{uri} does not exist") from error
    except PermissionError as error:
        raise VideoError(QuarantineReason.PERMISSION_DENIED, f"{uri} may not be read") from error
    with file:
        yield file


def _check_file(uri: str, is_file: bool, size_bytes: int | None) -> None:
    if not is_file:
        raise VideoError(QuarantineReason.NOT_A_FILE, f"{uri} is not a regular file")
    if size_bytes == 0:
        raise VideoError(QuarantineReason.EMPTY_FILE, f"{uri} has no bytes")


def _parse_clock(text: str) -> Fraction | None:
    """Seconds of Matroska's "00:00:10.333000000"; None if it is something else."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None
