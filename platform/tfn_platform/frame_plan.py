"""The frames of a video and their times from its packets alone, without decoding any."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av

from tfn_platform.video_source import VideoSource

MAX_GAP_SECONDS = 600
MAX_DIFFERENCE_SECONDS = Fraction(1)


class UnplannableError(ValueError):
    """The packets of this file do not say reliably which frames it has."""


@dataclass(frozen=True)
class FramePlan:
    """Frame n of a stream, in order of presentation."""

    stream_index: int
    """Among all streams of the file."""
    time_base: Fraction
    """Seconds a unit of `pts` and `durations`."""
    pts: list[int]
    """Strictly increasing."""
    durations: list[int]
    """As the file says; the next frame may begin earlier or later."""
    is_key: list[bool]

    @property
    def duration_seconds(self) -> Fraction:
        """From the first frame's start to the last one's end."""
        return (self.pts[-1] + self.durations[-1] - self.pts[0]) * self.time_base

    def frames_at(self, ticks: Iterable[int], *, frame_rate: Fraction) -> list[int]:
        """The number of the frame shown at each tick: the last that begins not after it.

        Ticks count from the first frame; it and the last one stand for all before and after them.
        """
        unit_ticks = self.time_base * frame_rate
        shown = []
        for tick in ticks:
            # Units are whole, so a tick between two of them is as good as the first of both.
            units = tick * unit_ticks.denominator // unit_ticks.numerator
            shown.append(max(0, bisect_right(self.pts, self.pts[0] + units) - 1))
        return shown

    def mapping(self) -> list[dict[str, int]]:
        """The frames as torchcodec's `custom_frame_mappings` lists them."""
        return [
            {"pts": pts, "duration": duration, "key_frame": int(is_key)}
            for pts, duration, is_key in zip(self.pts, self.durations, self.is_key, strict=True)
        ]


def plan_frames(source: VideoSource) -> FramePlan:
    """Read all packets of a video; raises UnplannableError where only decoding can tell."""
    if not source.has_presentation_times:
        raise UnplannableError(f"{source.container.format.name} stores no presentation times")
    rate = source.stream.average_rate or source.stream.guessed_rate or Fraction(25)
    step = round(1 / (rate * source.time_base))
    frames: list[tuple[int, int, bool]] = []
    begins_with_key = False
    try:
        packets = (packet for packet in source.container.demux(source.stream) if packet.size)
        for index, packet in enumerate(packets):
            begins_with_key = packet.is_keyframe if index == 0 else begins_with_key
            if packet.is_corrupt or packet.pts is None:
                raise UnplannableError("some packets are damaged or have no time")
            # A discarded packet is decoded for others' sake and not shown.
            if not packet.is_discard:
                frames.append((packet.pts, packet.duration or step, packet.is_keyframe))
    except av.FFmpegError as error:
        raise UnplannableError(f"its packets cannot all be read: {error.strerror}") from error
    if not frames or not begins_with_key:
        raise UnplannableError("it does not begin with a key frame")
    frames.sort()
    plan = FramePlan(
        source.stream.index,
        source.time_base,
        pts=[pts for pts, _, _ in frames],
        durations=[duration for _, duration, _ in frames],
        is_key=[is_key for _, _, is_key in frames],
    )
    _check(plan, source.declared_seconds())
    return plan


def _check(plan: FramePlan, declared_seconds: Fraction | None) -> None:
    gaps = [after - before for before, after in zip(plan.pts, plan.pts[1:], strict=False)]
    if gaps and min(gaps) == 0:
        raise UnplannableError("some packets have the same time")
    if max([*gaps, plan.durations[-1]]) * plan.time_base > MAX_GAP_SECONDS:
        raise UnplannableError(f"there is no frame for {MAX_GAP_SECONDS} seconds and more")
    if declared_seconds is None:
        return
    if abs(declared_seconds - plan.duration_seconds) > MAX_DIFFERENCE_SECONDS:
        raise UnplannableError(
            f"it lasts {float(plan.duration_seconds):.3f} seconds of the declared "
            f"{float(declared_seconds):.3f}"
        )
