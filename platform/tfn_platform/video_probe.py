"""What a video file says about itself, without decoding more than its first frame."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_bytes import missing_bytes, no_sign
from tfn_platform.video_frames import FrameReader
from tfn_platform.video_source import VideoError, VideoSource, open_video

MAX_DECLARED_SECONDS = 7 * 86_400
MIN_MISSING_SECONDS = Fraction(1)
MAX_ROUNDING_SECONDS = Fraction(1, 5)
"""Less than that is never called missing."""
MAX_MISSING_SHARE = Fraction(1, 50)


@dataclass(frozen=True)
class VideoInfo:
    """Facts for planning; clips are counted from what is decoded, not from these."""

    width: int
    """Pixels, as shown (after rotation)."""
    height: int
    """Pixels, as shown (after rotation)."""
    frame_rate: float
    """Frames a second on average, as declared."""
    duration_seconds: float
    """As declared; from the packets' times where nothing is declared."""
    rotation: int
    """Degrees counterclockwise by which stored frames are turned to be upright: 0, 90, 180, 270."""
    codec: str
    """FFmpeg's name of the decoder."""


def probe_video(uri: str, *, alive: Callable[[], None] = no_sign) -> VideoInfo:
    """Read the header and decode the first frame; raises VideoError like `iter_chunks`.

    `alive` is called for every packet: all of them are read where nothing is declared.
    """
    with open_video(uri, alive=alive) as source:
        reader = FrameReader(source)
        first = next(iter(reader), None)
        if first is None:
            reader.check_quality()
            raise VideoError(QuarantineReason.CORRUPT_FRAMES, f"{uri}: no frame has a time")
        codec = source.stream.codec_context.name
        rate = source.stream.average_rate or source.stream.guessed_rate
        seconds = source.declared_seconds()
        if seconds is not None:
            check_declared(uri, seconds)
    if seconds is None:
        with open_video(uri, alive=alive) as source:
            seconds = _packet_seconds(source, rate or Fraction(25))
    frame = first.frame
    rotation = round(frame.rotation / 90) * 90 % 360
    width, height = frame.width, frame.height
    if rotation in (90, 270):
        width, height = height, width
    return VideoInfo(
        width=width,
        height=height,
        frame_rate=float(rate or 25),
        duration_seconds=float(seconds),
        rotation=rotation,
        codec=codec,
    )


def check_bytes(source: VideoSource, decoded_seconds: Fraction) -> None:
    """Refuse a file whose end is missing by its own account, unless no frame is missing by that.

    Raises:
        VideoError: TRUNCATED.
    """
    declared_seconds = source.declared_seconds()
    if declared_seconds is not None and declared_seconds - decoded_seconds <= MAX_ROUNDING_SECONDS:
        return
    if num_bytes := missing_bytes(source.file, alive=source.alive):
        declared = (
            "" if declared_seconds is None else f"of the declared {float(declared_seconds):.3f} "
        )
        raise VideoError(
            QuarantineReason.TRUNCATED,
            f"{source.uri}: {float(decoded_seconds):.3f} {declared}seconds could be decoded, "
            f"{num_bytes} bytes are missing at its end",
        )


def check_whole(source: VideoSource, decoded_seconds: Fraction) -> None:
    """Compare with what the file says, as some decoders end early without an error.

    Raises:
        VideoError: TRUNCATED, or ABSURD_DURATION where what it says cannot be.
    """
    declared_seconds = source.declared_seconds()
    if declared_seconds is None:
        return
    tolerated_seconds = max(MIN_MISSING_SECONDS, MAX_MISSING_SHARE * declared_seconds)
    if declared_seconds - decoded_seconds > tolerated_seconds:
        check_declared(source.uri, declared_seconds)
        raise VideoError(
            QuarantineReason.TRUNCATED,
            f"{source.uri}: {float(decoded_seconds):.3f} of the declared "
            f"{float(declared_seconds):.3f} seconds could be decoded",
        )


def check_declared(uri: str, declared_seconds: Fraction) -> None:
    """Refuse a declared duration that no video has: VideoError ABSURD_DURATION."""
    if not 0 <= declared_seconds <= MAX_DECLARED_SECONDS:
        raise VideoError(
            QuarantineReason.ABSURD_DURATION,
            f"{uri}: declares {float(declared_seconds):.0f} seconds, "
            f"more than {MAX_DECLARED_SECONDS // 86_400} days or less than none",
        )


def check_expected_duration(
    uri: str,
    *,
    actual_seconds: float,
    expected_seconds: float,
    tolerance_share: float,
    tolerance_seconds: float = 2.0,
) -> None:
    """Refuse a video that is not as long as its annotation says.

    It may differ by `tolerance_share` of the expected duration and by `tolerance_seconds` at least.

    Raises:
        VideoError: DURATION_MISMATCH.
    """
    tolerated_seconds = max(tolerance_seconds, tolerance_share * expected_seconds)
    if not abs(actual_seconds - expected_seconds) <= tolerated_seconds:
        raise VideoError(
            QuarantineReason.DURATION_MISMATCH,
            f"{uri}: lasts {actual_seconds:.2f} seconds, its annotation says "
            f"{expected_seconds:.2f} (more than {tolerated_seconds:.2f} apart)",
        )


def _packet_seconds(source: VideoSource, rate: Fraction) -> Fraction:
    """From the first packet's time to the last one's end, or packets by rate without times."""
    first: int | None = None
    end = num_packets = 0
    try:
        for packet in source.container.demux(source.stream):
            source.alive()
            if packet.size:
                num_packets += 1
                if packet.pts is not None:
                    first = packet.pts if first is None else min(first, packet.pts)
                    end = max(end, packet.pts + (packet.duration or 0))
    except av.FFmpegError as error:
        raise VideoError(
            QuarantineReason.CORRUPT_FRAMES, f"{source.uri}: {error.strerror}"
        ) from error
    return num_packets / rate if first is None else (end - first) * source.time_base
