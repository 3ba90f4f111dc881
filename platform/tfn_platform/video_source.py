"""Open a video file and find its picture stream; every way to fail has a reason."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, BinaryIO

import av
from av.stream import Disposition

from tfn_platform.errors import TfnError
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_bytes import foreign_kind, is_encrypted, lacks_index, no_sign

MAX_FRAME_PIXELS = 8192 * 8192
"""Twice the pixels of 8K; a frame of that size takes 100 MB as the decoder holds it."""
OPEN_OPTIONS = {
    # An innocent-looking file may be a playlist that names others: open none of them.
    "protocol_whitelist": "none",
    # A small file may unpack to pictures that fill the memory, whatever its header says.
    "max_pixels": str(MAX_FRAME_PIXELS),
}
LOCAL_BUFFER_BYTES = 1 << 18
REMOTE_BUFFER_BYTES = 1 << 20
"""A remote file is read in requests of this size."""
NO_TIMESTAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: what is read is a bare stream, in no container."""
STILL_BRANDS = ("avif", "heic", "heix", "mif1")


class VideoError(TfnError):
    """A video that cannot be used: `reason` for the table, `detail` for the reader."""

    def __init__(self, reason: QuarantineReason, detail: str, *, attempts: int = 1) -> None:
        """Reason and detail are `args` and `attempts` is an attribute: all survive pickling."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.attempts = attempts

    def __str__(self) -> str:
        """Reason and detail in one line."""
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class VideoSource:
    """An open container and the stream of it that holds the pictures."""

    uri: str
    container: av.container.InputContainer
    stream: av.VideoStream
    file: BinaryIO
    alive: Callable[[], None] = no_sign
    """Called for every packet and every part of the file that is looked at."""

    @cached_property
    def time_base(self) -> Fraction:
        """Seconds a unit of the stream's timestamps."""
        return Fraction(self.stream.time_base or Fraction(1, 1))

    @cached_property
    def has_presentation_times(self) -> bool:
        """False for avi: it stores decoding order only, and what is made up from it may be wrong.

        (In files with packed B-frames the made-up times run backwards.)
        """
        return self.container.format.name != "avi"

    @property
    def can_seek(self) -> bool:
        """Whether the container's own index leads to true key frames."""
        return self.container.format.name.startswith(("mov,", "matroska"))

    @cached_property
    def declares_decoding_end(self) -> bool:
        """True for mp4: it declares the sum of the steps from one decoded frame to the next.

        Where frames are stored out of order and come at uneven times, the last may be shown later.
        """
        return self.container.format.name.startswith("mov,")

    def declared_seconds(self) -> Fraction | None:
        """How long the file says that the pictures last; None where it does not say."""
        stream = self.stream
        if self.container.format.flags & NO_TIMESTAMPS:
            # What FFmpeg gives for a bare stream is a guess from its bit rate.
            return None
        if stream.duration:
            return stream.duration * self.time_base
        if "DURATION" in stream.metadata:
            end = _parse_clock(stream.metadata["DURATION"])
            return None if end is None else end - (stream.start_time or 0) * self.time_base
        if len(self.container.streams) == 1 and self.container.duration:
            return Fraction(self.container.duration, av.time_base)
        return None

    def longest_seconds(self) -> Fraction | None:
        """The most that `declared_seconds` may mean.

        Some writers of Matroska count from the first frame what others count from zero.
        """
        seconds = self.declared_seconds()
        if seconds is None or not self.container.format.name.startswith("matroska"):
            return seconds
        return seconds + max(0, self.stream.start_time or 0) * self.time_base


@contextmanager
def open_video(uri: str, *, alive: Callable[[], None] = no_sign) -> Iterator[VideoSource]:
    """Open a local path or any address that pyarrow knows (s3://, gs://, file://).

    `alive` is called for every packet that is read, and while the file's parts are looked at.

    Raises VideoError for a file that is not usable; OSError where the storage fails, since that
    is no fault of the file and may be gone at the next attempt.
    """
    with _open_bytes(uri) as file:
        try:
            container = av.open(
                file,
                options=OPEN_OPTIONS,
                buffer_size=REMOTE_BUFFER_BYTES if "://" in uri else LOCAL_BUFFER_BYTES,
            )
        except av.FFmpegError as error:
            raise _why_not_opened(uri, file, alive, message=str(error.strerror)) from error
        with container:
            stream = _picture_stream(uri, container, file, alive)
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": OPEN_OPTIONS["max_pixels"]}
            yield VideoSource(uri, container, stream, file, alive)


def _why_not_opened(
    uri: str, file: BinaryIO, alive: Callable[[], None], *, message: str
) -> VideoError:
    if kind := foreign_kind(file):
        reason, what = kind
        return VideoError(reason, f"{uri}: this is {what}, not a video")
    if lacks_index(file, alive=alive):
        return VideoError(
            QuarantineReason.NO_INDEX,
            f"{uri}: an mp4 file without its index (moov); was its download cut short?",
        )
    return VideoError(QuarantineReason.NOT_A_VIDEO, f"{uri}: {message}")


def _picture_stream(
    uri: str,
    container: av.container.InputContainer,
    file: BinaryIO,
    alive: Callable[[], None],
) -> av.VideoStream:
    """The first stream of moving pictures, checked for what can be told before decoding."""
    streams = container.streams
    pictures = [s for s in streams.video if not s.disposition & Disposition.attached_pic]
    if not pictures:
        if len(streams) and len(streams) == len(streams.subtitles):
            raise VideoError(QuarantineReason.SUBTITLES, f"{uri}: holds nothing but subtitles")
        if kind := foreign_kind(file):
            raise VideoError(kind[0], f"{uri}: this is {kind[1]}, not a video")
        raise VideoError(
            QuarantineReason.NO_VIDEO_STREAM, f"{uri}: {len(streams)} streams, none of them video"
        )
    if container.format.name.endswith("_pipe") or _is_still_brand(container):
        raise VideoError(
            QuarantineReason.STILL_PICTURE,
            f"{uri}: a single picture ({container.format.long_name or container.format.name})",
        )
    context = pictures[0].codec_context
    # It is None for a codec that is not known, whatever the type says.
    if not context:
        if is_encrypted(file, alive=alive):
            raise VideoError(QuarantineReason.ENCRYPTED, f"{uri}: its video stream is encrypted")
        raise VideoError(QuarantineReason.NO_DECODER, f"{uri}: no decoder for its video stream")
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise VideoError(
            QuarantineReason.FRAME_TOO_LARGE,
            f"{uri}: frames of {context.width} x {context.height} pixels, "
            f"at most {MAX_FRAME_PIXELS} are decoded",
        )
    return pictures[0]


def _is_still_brand(container: av.container.InputContainer) -> bool:
    """AVIF and HEIC pictures lie in a container that is otherwise one of videos."""
    return container.metadata.get("major_brand") in STILL_BRANDS


@contextmanager
def _open_bytes(uri: str) -> Iterator[Any]:
    """Open the file for reading bytes, after the checks that need no decoder."""
    try:
        file = _open_remote(uri) if "://" in uri else _open_local(uri)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoError(QuarantineReason.MISSING_FILE, f"{uri} does not exist") from error
    except PermissionError as error:
        raise VideoError(QuarantineReason.PERMISSION_DENIED, f"{uri} may not be read") from error
    except ValueError as error:
        raise VideoError(QuarantineReason.NOT_A_FILE, f"{uri!r} is no address: {error}") from error
    except OSError as error:
        # A storage's refusal comes as an OSError of no special kind.
        if "ACCESS_DENIED" in str(error):
            raise VideoError(QuarantineReason.PERMISSION_DENIED, f"{uri}: {error}") from error
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise VideoError(QuarantineReason.NOT_A_FILE, f"{uri}: {error.strerror}") from error
        raise
    with file:
        yield file


def _open_local(path: str) -> BinaryIO:
    status = os.stat(path)
    _check_file(path, stat.S_ISREG(status.st_mode), status.st_size)
    return open(path, "rb")


def _open_remote(uri: str) -> Any:
    # Loaded here, as a decoding process that reads local files starts faster without it.
    from pyarrow import fs

    filesystem, path = fs.FileSystem.from_uri(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(uri)
    _check_file(uri, info.type == fs.FileType.File, info.size)
    return filesystem.open_input_file(path)


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
