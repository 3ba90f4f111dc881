"""The sampling grid: which instants of a video make up which clip, in exact arithmetic."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class SamplingGrid:
    """Tick m is the instant m / frame_rate after a video's first frame; clips are runs of ticks.

    Clip k is centred on (k + 1/2) strides to within half a tick; with alignment "start" it begins
    at k strides instead. Clips may reach beyond the video: its first or last frame stands in.
    """

    frame_rate: Fraction
    """Ticks a second."""
    stride_seconds: Fraction
    """From one clip to the next."""
    frames_per_clip: int
    """Ticks a clip."""
    short_side: int
    """Pixels of the shorter side that frames are resized to."""
    alignment: Literal["center", "start"] = "center"
    """What of clip k lies on the stride's grid."""

    def __post_init__(self) -> None:
        """Make the fractions exact (a float would hide a rounding) and check the ranges."""
        for name in ("frame_rate", "stride_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | Fraction) or value <= 0:
                raise ValueError(f"{name} must be a positive Fraction or int, got {value!r}")
            object.__setattr__(self, name, Fraction(value))
        for name in ("frames_per_clip", "short_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.alignment not in ("center", "start"):
            raise ValueError(f'alignment must be "center" or "start", got {self.alignment!r}')

    @cached_property
    def stride_ticks(self) -> Fraction:
        """Ticks from one clip to the next; need not be whole."""
        return self.stride_seconds * self.frame_rate

    def num_clips(self, duration_seconds: Fraction) -> int:
        """T: clips of a video of this length, at least 1."""
        return max(1, math.floor(duration_seconds / self.stride_seconds + HALF))

    def first_tick(self, clip: int) -> int:
        """The tick that clip `clip` begins with; negative where it begins before the video.

        floor(stride_ticks * (clip + 1/2) - (frames_per_clip - 1) / 2 + 1/2), or with alignment
        "start" floor(stride_ticks * clip + 1/2), as divisions of whole numbers.
        """
        ticks, clips = self.stride_ticks.as_integer_ratio()
        if self.alignment == "start":
            return (2 * ticks * clip + clips) // (2 * clips)
        return (ticks * (2 * clip + 1) - clips * (self.frames_per_clip - 2)) // (2 * clips)

    @cached_property
    def has_gaps(self) -> bool:
        """Whether there are ticks between clips that belong to none."""
        return self.stride_ticks > self.frames_per_clip

    def clip_offset(self, clip: int, *, first_clip: int) -> int:
        """Where in a chunk of frames that begins with clip `first_clip` clip `clip` begins.

        A chunk holds every tick from its first to its last one, but for those of no clip.
        """
        if self.has_gaps:
            return (clip - first_clip) * self.frames_per_clip
        return self.first_tick(clip) - self.first_tick(first_clip)

    def chunk_ticks(self, num_clips: int, *, first_clip: int = 0) -> int:
        """How many frames a chunk of this many clips holds."""
        last = first_clip + num_clips - 1
        return self.clip_offset(last, first_clip=first_clip) + self.frames_per_clip

    def center_seconds(self, clip: int) -> float:
        """The instant that clip `clip` stands for, after the video's first frame."""
        if self.alignment == "start":
            half_clip = Fraction(self.frames_per_clip - 1, 2) / self.frame_rate
            return float(self.stride_seconds * clip + half_clip)
        return float(self.stride_seconds * (clip + HALF))
