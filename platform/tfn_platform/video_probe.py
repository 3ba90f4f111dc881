"""What a video file says about itself, without decoding more than its first frame."""

from dataclasses import dataclass
from fractions import Fraction

import av

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_frames import FrameReader
from tfn_platform.video_source import VideoError, VideoSource, open_video


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


def probe_video(uri: str) -> VideoInfo:
    """Read the header and decode the first frame; raises VideoError like `iter_chunks`."""
    with open_video(uri) as source:
        reader = FrameReader(source)
        first = next(iter(reader), None)
        if first is None:
            reader.check_quality()
            raise VideoError(QuarantineReason.CORRUPT_FRAMES, f"{uri}: no frame has a time")
        codec = source.stream.codec_context.name
        rate = source.stream.average_rate or source.stream.guessed_rate
        seconds = source.declared_seconds()
    if seconds is None:
        with open_video(uri) as source:
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


def _packet_seconds(source: VideoSource, rate: Fraction) -> Fraction:
    """From the first packet's time to the last one's end, or packets by rate without times."""
    first: int | None = None
    end = num_packets = 0
    try:
        for packet in source.container.demux(source.stream):
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
