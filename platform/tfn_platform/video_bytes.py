"""What a file's own bytes say where FFmpeg does not: what else it is, and whether its end is there.

Read only where something is wrong, as each read of a remote file is a round trip.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tfn_platform.quarantine_reason import QuarantineReason

HEAD_BYTES = 1024
MAX_BOXES = 100_000
MAX_INDEX_BYTES = 1 << 20
MATROSKA_HEADER = b"\x1a\x45\xdf\xa3"
MATROSKA_SEGMENT = b"\x18\x53\x80\x67"

SIGNATURES = (
    (QuarantineReason.ARCHIVE, 0, b"PK\x03\x04", "a zip archive"),
    (QuarantineReason.ARCHIVE, 0, b"\x1f\x8b", "a gzip archive"),
    (QuarantineReason.ARCHIVE, 0, b"Rar!", "a rar archive"),
    (QuarantineReason.ARCHIVE, 0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (QuarantineReason.ARCHIVE, 0, b"BZh", "a bzip2 archive"),
    (QuarantineReason.ARCHIVE, 0, b"\xfd7zXZ\x00", "an xz archive"),
    (QuarantineReason.ARCHIVE, 0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (QuarantineReason.ARCHIVE, 257, b"ustar", "a tar archive"),
    (QuarantineReason.PLAYLIST, 0, b"#EXTM3U", "an m3u playlist"),
    (QuarantineReason.PLAYLIST, 0, b"ffconcat", "an ffconcat playlist"),
    (QuarantineReason.PLAYLIST, 0, b"[playlist]", "a pls playlist"),
    (QuarantineReason.SUBTITLES, 0, b"WEBVTT", "WebVTT subtitles"),
)
"""What is looked for, and at which byte."""


def no_sign() -> None:
    """The sign of life of a reader that nobody watches."""


@dataclass(frozen=True)
class Box:
    """A part of an mp4 or avi file: four letters and where it lies, by its own account."""

    name: bytes
    offset: int
    end: int


def foreign_kind(file: BinaryIO) -> tuple[QuarantineReason, str] | None:
    """What a file that is no video is, as far as its first bytes tell."""
    head = _read_at(file, 0, HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    for reason, offset, signature, what in SIGNATURES:
        if head[offset:].startswith(signature):
            return reason, what
    text = head.lstrip().lower()
    if b"<mpd" in text:
        return QuarantineReason.PLAYLIST, "a DASH playlist"
    if text.startswith((b"<!doctype html", b"<html")):
        return QuarantineReason.NOT_A_VIDEO, "a web page"
    return None


def lacks_index(file: BinaryIO, *, alive: Callable[[], None] = no_sign) -> bool:
    """Whether this is an mp4 file without its index: frames that nobody can find.

    Here and below `alive` is called for every part of the file that is looked at.
    """
    names = {box.name for box in _mp4_boxes(file, alive)}
    return bool(names & {b"ftyp", b"mdat"}) and not names & {b"moov", b"moof"}


def is_encrypted(file: BinaryIO, *, alive: Callable[[], None] = no_sign) -> bool:
    """Whether the index of an mp4 file speaks of an encrypted video stream."""
    return any(
        b"encv" in _read_at(file, box.offset, min(box.end - box.offset, MAX_INDEX_BYTES))
        for box in _mp4_boxes(file, alive)
        if box.name == b"moov"
    )


def missing_bytes(file: BinaryIO, *, alive: Callable[[], None] = no_sign) -> int:
    """How many bytes an mp4, avi or Matroska file lacks by its own account; 0 for others."""
    size = file.seek(0, os.SEEK_END)
    head = _read_at(file, 0, HEAD_BYTES)
    if head.startswith(MATROSKA_HEADER):
        return max(0, _segment_end(head) - size)
    if head.startswith(b"RIFF"):
        ends = [box.end for box in _boxes(file, alive, "<4sI", names_first=True)]
    else:
        ends = [box.end for box in _mp4_boxes(file, alive)]
    return max(0, max(ends, default=0) - size)


def _mp4_boxes(file: BinaryIO, alive: Callable[[], None]) -> Iterator[Box]:
    """The boxes of the uppermost level; none of a file that does not begin with a likely one."""
    if _read_at(file, 4, 4) in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"):
        yield from _boxes(file, alive, ">I4s", names_first=False)


def _boxes(
    file: BinaryIO, alive: Callable[[], None], layout: str, *, names_first: bool
) -> Iterator[Box]:
    offset = 0
    for _ in range(MAX_BOXES):
        alive()
        header = _read_at(file, offset, 16)
        if len(header) < 8:
            return
        first, second = struct.unpack(layout, header[:8])
        name, num_bytes = (first, second + 8) if names_first else (second, first)
        if not names_first and num_bytes == 1 and len(header) == 16:
            num_bytes = int.from_bytes(header[8:], "big")
        if num_bytes < 8:
            # Zero means "to the end of the file", anything else that this is no box.
            return
        yield Box(name, offset, offset + num_bytes)
        offset += num_bytes + (num_bytes % 2 if names_first else 0)


def _segment_end(head: bytes) -> int:
    """Where a Matroska file's one great element ends; 0 where it does not say."""
    start = head.find(MATROSKA_SEGMENT)
    if start < 0 or len(head) < start + 12:
        return 0
    first = head[start + 4]
    # The number of leading zero bits is the number of bytes that follow.
    num_bytes = 9 - first.bit_length()
    field = head[start + 4 : start + 4 + num_bytes]
    value = int.from_bytes(field, "big") & ((1 << 7 * num_bytes) - 1)
    is_unknown = value == (1 << 7 * num_bytes) - 1
    return 0 if is_unknown else start + 4 + num_bytes + value


def _read_at(file: BinaryIO, offset: int, num_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(num_bytes)
