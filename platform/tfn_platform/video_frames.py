"""Decode a video packet by packet into frames with exact times, and judge what came out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_bytes import is_encrypted
from tfn_platform.video_source import MAX_FRAME_PIXELS, VideoError, VideoSource, open_video

MAX_BAD_SHARE = Fraction(1, 10)
MAX_CORRUPT_SHARE = Fraction(1, 4)
"""Of frames that the decoder made up in part: less bad than one that it did not give."""
MAX_FRAME_SECONDS = 3600
MAX_UNCHECKED_SECONDS = Fraction(1)
MIN_EXCESS_SECONDS = Fraction(1)
MAX_EXCESS_SHARE = Fraction(1, 50)
"""Many files declare a little less than they hold."""
MAX_DEMUX_ERRORS = 100
PICTURE_FORMATS = ("gif", "apng")
NUM_PACKETS_TO_EXPLAIN = 5


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame and when it is shown, in whole units of its reader's `unit_seconds`."""

    frame: av.VideoFrame
    start: int
    """On the stream's own clock."""
    end: int
    """What the file says; the next frame may begin earlier or later."""


class FrameReader:
    """Iterate once over the frames of a source, in order of presentation.

    Packets that do not decode and frames whose time does not advance are skipped and counted.
    Times are whole numbers of a unit that both the stream's clock and its frame rate are multiples
    of: as exact as fractions, at a tenth of their cost for every frame.
    """

    def __init__(self, source: VideoSource, *, salvage: bool = False) -> None:
        """Nothing is read before the first frame is asked for.

        With `salvage` a leap in time ends the video, and `check_quality` says so.
        """
        self.num_packets = 0
        self.num_bad_packets = 0
        self.num_frames = 0
        self.num_corrupt_frames = 0
        self.num_bad_timestamps = 0
        self.num_late_frames = 0
        self._source = source
        self._salvage = salvage
        rate = source.stream.average_rate or source.stream.guessed_rate
        usual_step_seconds = min(1 / Fraction(rate or 25), MAX_UNCHECKED_SECONDS)
        self.unit_seconds = _common_measure(source.time_base, usual_step_seconds)
        self._stamp_units = int(source.time_base / self.unit_seconds)
        self._usual_step = int(usual_step_seconds / self.unit_seconds)
        self._longest_step = self._whole_units(Fraction(MAX_FRAME_SECONDS))
        self._unchecked_step = self._whole_units(MAX_UNCHECKED_SECONDS)
        self._origin: int | None = None
        self._declared_end: int | None = None
        self._leap: VideoError | None = None
        self._is_timed: bool | None = None
        self._last: TimedFrame | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield frames of strictly increasing start."""
        for frame in self._decoded():
            self.num_frames += 1
            self.num_corrupt_frames += frame.is_corrupt
            timed = self._time(frame)
            last = self._last
            if timed and self._is_late(timed):
                self.num_late_frames += 1
                continue
            if timed is None or (last and timed.start <= last.start):
                self.num_bad_timestamps += 1
                continue
            if last and timed.start - last.end > self._longest_step:
                self._leap = VideoError(
                    QuarantineReason.BAD_TIMESTAMPS,
                    f"{self._source.uri}: no frame between {self._seconds(last.end):.3f} "
                    f"and {self._seconds(timed.start):.3f} seconds",
                )
                if self._salvage:
                    return
                raise self._leap
            self._last = timed
            yield timed

    def check_quality(self) -> None:
        """Raise VideoError where too much was skipped; call it after the last frame."""
        uri = self._source.uri
        if self._leap:
            raise self._leap
        if not self.num_packets:
            raise VideoError(
                QuarantineReason.EMPTY_STREAM, f"{uri}: its video stream holds no packet"
            )
        if self.num_bad_packets > MAX_BAD_SHARE * self.num_packets or not self.num_frames:
            self._explain_bad_packets()
            raise VideoError(
                QuarantineReason.CORRUPT_FRAMES,
                f"{uri}: {self.num_bad_packets} of {self.num_packets} packets did not decode, "
                f"{self.num_frames} frames did",
            )
        if self.num_corrupt_frames > MAX_CORRUPT_SHARE * self.num_frames:
            raise VideoError(
                QuarantineReason.CORRUPT_FRAMES,
                f"{uri}: {self.num_corrupt_frames} of {self.num_frames} frames are damaged",
            )
        if self.num_frames == 1 and self._source.container.format.name in PICTURE_FORMATS:
            raise VideoError(QuarantineReason.STILL_PICTURE, f"{uri}: an animation of one picture")
        if self.num_late_frames:
            raise VideoError(
                QuarantineReason.BAD_TIMESTAMPS,
                f"{uri}: {self.num_late_frames} of {self.num_frames} frames begin after the end "
                "that the file declares",
            )
        if self.num_bad_timestamps > MAX_BAD_SHARE * self.num_frames:
            raise VideoError(
                QuarantineReason.BAD_TIMESTAMPS,
                f"{uri}: {self.num_bad_timestamps} of {self.num_frames} frames have no time "
                "or one that does not advance",
            )

    def _explain_bad_packets(self) -> None:
        """Raise VideoError where it is known why packets do not decode."""
        source = self._source
        if is_encrypted(source.file, alive=source.alive):
            raise VideoError(
                QuarantineReason.ENCRYPTED, f"{source.uri}: its video stream is encrypted"
            )
        if not self.num_frames and refuses_size(source.uri):
            raise VideoError(
                QuarantineReason.FRAME_TOO_LARGE,
                f"{source.uri}: its frames have more than {MAX_FRAME_PIXELS} pixels",
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            self.num_packets += 1
            self._source.alive()
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
        last = self._last
        has_times = self._source.has_presentation_times
        stamp = frame.pts if has_times else frame.dts
        if self._is_timed is None:
            self._is_timed = stamp is not None
        if stamp is not None:
            start = stamp * self._stamp_units if self._is_timed else None
        elif not self._is_timed or not has_times:
            start = last.end if last else 0
        else:
            start = None
        return None if start is None else TimedFrame(frame, start, start + self._step(frame, start))

    def _step(self, frame: av.VideoFrame, start: int) -> int:
        """How long a frame is shown: what it says, unless that cannot be; then by the rate.

        A long time is believed only within what the whole file says of itself.
        """
        step = (frame.duration or 0) * self._stamp_units
        limit = self._longest_step
        if (latest_end := self._latest_end(start)) is not None:
            limit = max(self._unchecked_step, min(limit, latest_end - start))
        return step if 0 < step <= limit else self._usual_step

    def _is_late(self, timed: TimedFrame) -> bool:
        """Whether a frame begins where the file has none by its own account: its time is wrong.

        Only where frames have times of their own; avi counts them, and some headers count less.
        """
        source, frame = self._source, timed.frame
        stamp = frame.dts if source.declares_decoding_end else frame.pts
        latest_end = self._latest_end(timed.start)
        if stamp is None or latest_end is None or not source.has_presentation_times:
            return False
        return stamp * self._stamp_units > latest_end

    def _latest_end(self, start: int) -> int | None:
        """Where the file declares to end, and a little later; `start` is the first frame's once."""
        if self._origin is None:
            self._origin = start
            seconds = self._source.longest_seconds()
            if seconds is not None and seconds >= 0:
                excess = max(MIN_EXCESS_SECONDS, MAX_EXCESS_SHARE * seconds)
                self._declared_end = start + self._whole_units(seconds + excess)
        return self._declared_end

    def _whole_units(self, seconds: Fraction) -> int:
        """A limit for whole numbers of units: those above it are those above `seconds`."""
        return math.floor(seconds / self.unit_seconds)

    def _seconds(self, units: int) -> float:
        return float(units * self.unit_seconds)


def _common_measure(one: Fraction, other: Fraction) -> Fraction:
    """The longest time that both are multiples of."""
    return Fraction(
        math.gcd(one.numerator * other.denominator, other.numerator * one.denominator),
        one.denominator * other.denominator,
    )


def refuses_size(uri: str) -> bool:
    """Whether the decoder says, in its log and nowhere else, that a frame is too large for it."""
    level, skip_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages, open_video(uri) as source:
            for packet in islice(source.container.demux(source.stream), NUM_PACKETS_TO_EXPLAIN):
                try:
                    packet.decode()
                except av.FFmpegError:
                    continue
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip_repeated)
    return any("Picture size" in message for _, _, message in messages)
