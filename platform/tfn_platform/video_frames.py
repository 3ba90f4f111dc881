"""Decode a video packet by packet into frames with exact times, and judge what came out."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_source import VideoError, VideoSource

MAX_BAD_SHARE = Fraction(1, 10)
MAX_FRAME_SECONDS = 600
MAX_DEMUX_ERRORS = 100


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame and when it is shown, in seconds on the stream's own clock."""

    frame: av.VideoFrame
    start_seconds: Fraction
    end_seconds: Fraction
    """What the file says; the next frame may begin earlier or later."""


class FrameReader:
    """Iterate once over the frames of a source, in order of presentation.

    Packets that do not decode and frames whose time does not advance are skipped and counted.
    """

    def __init__(self, source: VideoSource) -> None:
        """Nothing is read before the first frame is asked for."""
        self.num_packets = 0
        self.num_bad_packets = 0
        self.num_frames = 0
        self.num_bad_timestamps = 0
        self._source = source
        self._is_timed: bool | None = None
        self._last: TimedFrame | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield frames of strictly increasing start."""
        for frame in self._decoded():
            self.num_frames += 1
            timed = self._time(frame)
            last = self._last
            if timed is None or (last and timed.start_seconds <= last.start_seconds):
                self.num_bad_timestamps += 1
                continue
            if last and timed.start_seconds - last.end_seconds > MAX_FRAME_SECONDS:
                raise VideoError(
                    QuarantineReason.BAD_TIMESTAMPS,
                    f"{self._source.uri}: no frame between {float(last.end_seconds):.3f} "
                    f"and {float(timed.start_seconds):.3f} seconds",
                )
            self._last = timed
            yield timed

    def check_quality(self) -> None:
        """Raise VideoError where too much was skipped; call it after the last frame."""
        uri = self._source.uri
        if self.num_bad_packets > MAX_BAD_SHARE * self.num_packets or not self.num_frames:
            raise VideoError(
                QuarantineReason.CORRUPT_FRAMES,
                f"{uri}: {self.num_bad_packets} of {self.num_packets} packets did not decode, "
                f"{self.num_frames} frames did",
            )
        if self.num_bad_timestamps > MAX_BAD_SHARE * self.num_frames:
            raise VideoError(
                QuarantineReason.BAD_TIMESTAMPS,
                f"{uri}: {self.num_bad_timestamps} of {self.num_frames} frames have no time "
                "or one that does not advance",
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            self.num_packets += 1
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self.num_bad_packets += 1
        try:
            yield from self._source.stream.decode(None)
        except av.FFmpegError:
            self.num_bad_packets += 1

    def _packets(self) -> Iterator["av.Packet[av.VideoStream]"]:
        """Packets with something in them; reading goes on after an error in the container."""
        num_errors = 0
        while num_errors < MAX_DEMUX_ERRORS:
            try:
                for packet in self._source.container.demux(self._source.stream):
                    if packet.size:
                        yield packet
                return
            except av.FFmpegError:
                num_errors += 1
                self.num_packets += 1
                self.num_bad_packets += 1

    def _time(self, frame: av.VideoFrame) -> TimedFrame | None:
        """Put a frame on the clock; None where its time is missing but others' was not."""
        source, last = self._source, self._last
        rate = source.stream.average_rate or source.stream.guessed_rate
        step = frame.duration * source.time_base if frame.duration else Fraction(1 / (rate or 25))
        stamp = frame.pts if source.has_presentation_times else frame.dts
        if self._is_timed is None:
            self._is_timed = stamp is not None
        if stamp is not None:
            start = stamp * source.time_base if self._is_timed else None
        elif not self._is_timed or not source.has_presentation_times:
            start = last.end_seconds if last else Fraction(0)
        else:
            start = None
        return None if start is None else TimedFrame(frame, start, start + step)
