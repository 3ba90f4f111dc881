"""Files that are no usable videos, each for another reason, made on the spot from a good one."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tfn_platform.datasets.synthetic_damage import Damage, damage_video
from tfn_platform.quarantine_reason import QuarantineReason as Reason

RATE = 25
WRITE_ONLY = ("/sys/bus/cpu/uevent", "/sys/bus/pci/rescan")
"""Files that the kernel lets nobody read, not even root, whom no permission bits stop."""


def plant_damaged(folder: Path, *, good: bytes) -> dict[str, Reason]:
    """Write files of every kind of damage into `folder`: name -> why it cannot be used.

    `good` is a sound mp4 file with H.264 and some seconds of frames. One of the names is of a file
    that does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = _remuxed(good, folder, "mp4")
    reasons: dict[str, Reason] = {}
    for name, reason, data in (
        *_not_videos(good, plain),
        *_damaged_mp4s(_remuxed(good, folder, "mp4", movflags="+faststart"), plain),
        *_damaged_others(good, folder),
    ):
        (folder / name).write_bytes(data)
        reasons[name] = reason
    _frame_bomb(folder / "frame_bomb.mp4")
    reasons["frame_bomb.mp4"] = Reason.FRAME_TOO_LARGE
    _sound_only(folder / "empty_stream.mkv")
    reasons["empty_stream.mkv"] = Reason.EMPTY_STREAM
    return reasons | _not_files(folder)


def plant_usable(folder: Path, *, good: bytes) -> list[str]:
    """Write files that look wrong but are not; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    absurd = bytearray(_remuxed(good, folder, "mp4"))
    struct.pack_into(">I", absurd, absurd.index(b"mvhd") + 20, 0xFFFFFFF0)
    files = {
        "avi_inside.mp4": _mpeg4_avi(folder),
        "matroska_inside.avi": _remuxed(good, folder, "matroska"),
        "no_suffix": good,
        "a name with spaces, ümläuts & 100%.mp4": good,
        "absurd_movie_header.mp4": bytes(absurd),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(files)


def _not_videos(good: bytes, plain: bytes) -> list[tuple[str, Reason, bytes]]:
    rng = np.random.default_rng(0)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("video.mp4", good)
    return [
        ("zero_bytes.mp4", Reason.EMPTY_FILE, b""),
        ("random_bytes.mp4", Reason.NOT_A_VIDEO, rng.bytes(20_000)),
        ("text.mp4", Reason.NOT_A_VIDEO, b"This video was removed by its uploader.\n" * 20),
        ("web_page.mp4", Reason.NOT_A_VIDEO, b"<!DOCTYPE html><html><body>404</body></html>\n"),
        ("audio_only.mp4", Reason.NO_VIDEO_STREAM, damage_video(good, Damage.AUDIO_ONLY, rng=rng)),
        ("zip.mp4", Reason.ARCHIVE, zipped.getvalue()),
        ("gzip.mp4", Reason.ARCHIVE, gzip.compress(good)),
        ("jpeg.mp4", Reason.STILL_PICTURE, _picture("mjpeg", "yuvj420p")),
        ("png.mp4", Reason.STILL_PICTURE, _picture("png", "rgb24")),
        ("srt.mp4", Reason.SUBTITLES, b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n"),
        (
            "hls.mp4",
            Reason.PLAYLIST,
            b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nno_suffix\n#EXT-X-ENDLIST\n",
        ),
        ("concat.mp4", Reason.PLAYLIST, b"ffconcat version 1.0\nfile 'no_suffix'\n"),
        ("garbled_header.mp4", Reason.NOT_A_VIDEO, rng.bytes(64) + plain[64:]),
    ]


def _damaged_mp4s(fast_start: bytes, plain: bytes) -> list[tuple[str, Reason, bytes]]:
    """`fast_start` has its index first, `plain` last."""
    flipped, garbled = bytearray(fast_start), bytearray(fast_start)
    begin = fast_start.index(b"mdat") + 4
    rng = np.random.default_rng(0)
    garbled[begin:] = rng.bytes(len(garbled) - begin)
    for position in range(begin + 10, len(flipped), 25):
        flipped[position] ^= int(rng.integers(1, 256))
    unknown = fast_start.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC")
    return [
        ("truncated_index.mp4", Reason.NO_INDEX, plain[: int(0.4 * len(plain))]),
        ("truncated.mp4", Reason.TRUNCATED, fast_start[: int(0.5 * len(fast_start))]),
        ("truncated_a_little.mp4", Reason.TRUNCATED, fast_start[: int(0.9 * len(fast_start))]),
        ("bit_flips.mp4", Reason.CORRUPT_FRAMES, bytes(flipped)),
        ("garbled_frames.mp4", Reason.CORRUPT_FRAMES, bytes(garbled)),
        ("unknown_codec.mp4", Reason.NO_DECODER, unknown),
    ]


def _damaged_others(good: bytes, folder: Path) -> list[tuple[str, Reason, bytes]]:
    matroska = _remuxed(good, folder, "matroska")
    avi = _mpeg4_avi(folder)
    key = "00112233445566778899aabbccddeeff"
    encrypted = _remuxed(
        good,
        folder,
        "mp4",
        encryption_scheme="cenc-aes-ctr",
        encryption_key=key,
        encryption_kid=key,
    )
    return [
        ("truncated.mkv", Reason.TRUNCATED, matroska[: len(matroska) // 2]),
        ("truncated.avi", Reason.TRUNCATED, avi[: len(avi) // 2]),
        ("absurd_duration.mkv", Reason.ABSURD_DURATION, _absurdly_long(matroska)),
        ("encrypted.mp4", Reason.ENCRYPTED, encrypted),
        (
            "frozen_clock.mkv",
            Reason.BAD_TIMESTAMPS,
            _remuxed(good, folder, "matroska", retime=lambda n: n // 4 * 4),
        ),
        (
            "leaping_clock.mkv",
            Reason.BAD_TIMESTAMPS,
            _remuxed(good, folder, "matroska", retime=lambda n: n + RATE * 86_400 * (n > 9)),
        ),
    ]


def _not_files(folder: Path) -> dict[str, Reason]:
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dangling.mp4").symlink_to(folder / "missing.mp4")
    (folder / "circular.mp4").symlink_to(folder / "circular.mp4")
    forbidden = folder / "forbidden.mp4"
    if os.geteuid() == 0:
        forbidden.symlink_to(next(path for path in WRITE_ONLY if os.path.exists(path)))
    else:
        forbidden.write_bytes(b"x")
        forbidden.chmod(0)
    return {
        "missing.mp4": Reason.MISSING_FILE,
        "folder.mp4": Reason.NOT_A_FILE,
        "pipe.mp4": Reason.NOT_A_FILE,
        "dangling.mp4": Reason.MISSING_FILE,
        "circular.mp4": Reason.NOT_A_FILE,
        "forbidden.mp4": Reason.PERMISSION_DENIED,
    }


def _remuxed(
    good: bytes,
    folder: Path,
    format_name: str,
    *,
    retime: Callable[[int], int] | None = None,
    **options: str,
) -> bytes:
    """The same packets in another container; `retime` gives the times of frames instead."""
    path = folder / ".remuxed"
    with (
        av.open(io.BytesIO(good)) as source,
        av.open(str(path), "w", format=format_name, container_options=options) as target,
    ):
        pictures = source.streams.video[0]
        stream = target.add_stream_from_template(pictures)
        number = 0
        for packet in source.demux(pictures):
            if not packet.size:
                continue
            packet.stream = stream
            if retime:
                packet.time_base = Fraction(1, RATE)
                packet.pts = packet.dts = retime(number)
            target.mux(packet)
            number += 1
    data = path.read_bytes()
    path.unlink()
    return data


def _mpeg4_avi(folder: Path, num_frames: int = 100) -> bytes:
    path = folder / ".encoded.avi"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(num_frames):
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.unlink()
    return data


def _absurdly_long(matroska: bytes) -> bytes:
    """Say 10^9 seconds in both places where the file says how long it is."""
    data = bytearray(matroska)
    struct.pack_into(">d", data, data.index(b"\x44\x89\x88") + 3, 1e12)
    clock = data.index(b"DURATIOND\x87") + len(b"DURATIOND\x87") + 1
    data[clock : clock + 18] = b"277777:46:40.00000"
    return bytes(data)


def _picture(codec: str, pix_fmt: str) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 64, 48, pix_fmt
    context.time_base = Fraction(1, RATE)
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
    frame = frame.reformat(format=pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _frame_bomb(path: Path, side: int = 12_000) -> None:
    """A few kilobytes that say they are small and unpack to 144 million pixels."""

    def part(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = part(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    pixels = part(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side)))
    png = b"\x89PNG\r\n\x1a\n" + header + pixels + part(b"IEND", b"")
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=RATE)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb24"
        for number in range(3):
            packet = av.Packet(png)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, RATE), stream
            packet.is_keyframe = True
            container.mux(packet)


def _sound_only(path: Path) -> None:
    """A video stream that is announced and never comes."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=RATE)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(50):
            samples = np.zeros((1, 640), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, number * 640
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
