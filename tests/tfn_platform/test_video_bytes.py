import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_bytes import foreign_kind, is_encrypted, lacks_index, missing_bytes


def box(name: bytes, body: bytes, *, wide: bool = False) -> bytes:
    if wide:
        return struct.pack(">I4sQ", 1, name, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, name) + body


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def matroska(body: bytes, size: bytes) -> bytes:
    return b"\x1a\x45\xdf\xa3\x84ebml\x18\x53\x80\x67" + size + body


MP4 = box(b"ftyp", b"isom") + box(b"moov", b"abc") + box(b"mdat", b"x" * 100)
WIDE = box(b"ftyp", b"isom") + box(b"moov", b"abc") + box(b"mdat", b"x" * 100, wide=True)
AVI = chunk(b"RIFF", b"AVI " + b"x" * 51) + chunk(b"RIFF", b"AVIX" + b"x" * 40)
SIZED = matroska(b"x" * 300, b"\x41\x2c")
LONG_SIZED = matroska(b"x" * 300, b"\x01" + (300).to_bytes(7, "big"))


@pytest.mark.parametrize("data", [MP4, WIDE, AVI, SIZED, LONG_SIZED])
@pytest.mark.parametrize("num_cut", [0, 1, 30])
def test_what_is_cut_off_is_missed(data: bytes, num_cut: int) -> None:
    assert missing_bytes(io.BytesIO(data[: len(data) - num_cut])) == num_cut


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x00" * 100,
        b"no container of this kind" * 10,
        # To the end of the file, wherever that is.
        box(b"ftyp", b"isom") + struct.pack(">I4s", 0, b"mdat") + b"x" * 50,
        matroska(b"x" * 300, b"\x01" + b"\xff" * 7),
        matroska(b"", b"")[:10],
    ],
)
def test_where_nothing_is_said_nothing_is_missed(data: bytes) -> None:
    assert missing_bytes(io.BytesIO(data)) == 0


@pytest.mark.parametrize("look", [missing_bytes, lacks_index, is_encrypted])
def test_signs_of_life_while_many_parts_are_looked_at(look: Callable[..., object]) -> None:
    signs = []
    look(io.BytesIO(MP4 + 1000 * box(b"free", b"")), alive=lambda: signs.append(1))
    assert len(signs) > 1000


def test_real_files_are_whole(shared_dir: Path) -> None:
    for path in (shared_dir / "data" / "videos").iterdir():
        with path.open("rb") as file:
            assert missing_bytes(file) == 0, path
            assert foreign_kind(file) is None
            assert not is_encrypted(file) and not lacks_index(file)


def test_an_mp4_without_its_index() -> None:
    config = SyntheticConfig(
        num_training=1, min_duration_seconds=2, max_duration_seconds=3, min_short_side=32
    )
    data = render_video(config, 0).data
    assert not lacks_index(io.BytesIO(data))
    assert lacks_index(io.BytesIO(data[: len(data) // 3]))
    assert not lacks_index(io.BytesIO(AVI))
    # A fragmented file has its index in pieces.
    assert not lacks_index(io.BytesIO(box(b"styp", b"msdh") + box(b"moof", b"x")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04rest", QuarantineReason.ARCHIVE),
        (b"\0" * 257 + b"ustar\x0000", QuarantineReason.ARCHIVE),
        (b"\xef\xbb\xbf#EXTM3U\n", QuarantineReason.PLAYLIST),
        (b'<?xml version="1.0"?>\n<MPD type="static">', QuarantineReason.PLAYLIST),
        (b"WEBVTT\n\n", QuarantineReason.SUBTITLES),
        (b"\n <HTML><body>", QuarantineReason.NOT_A_VIDEO),
    ],
)
def test_what_else_a_file_may_be(data: bytes, reason: QuarantineReason) -> None:
    kind = foreign_kind(io.BytesIO(data))
    assert kind is not None and kind[0] is reason


def test_what_is_not_known_is_not_guessed() -> None:
    for data in (b"", b"x" * 2000, MP4, AVI, SIZED):
        assert foreign_kind(io.BytesIO(data)) is None
    assert not is_encrypted(io.BytesIO(MP4))
    assert is_encrypted(io.BytesIO(MP4.replace(b"abc", b"encv").replace(b"\x0bmoov", b"\x0cmoov")))
