"""What every annotation reader returns: a video and its labelled segments."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelledSegment:
    """One action instance; times in seconds from the first frame."""

    label: str
    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        """Refuse an empty label and times that are not finite or run backwards."""
        if not self.label:
            raise ValueError("label must not be empty")
        if not (math.isfinite(self.start_seconds) and math.isfinite(self.end_seconds)):
            raise ValueError(
                f"segment times must be finite, got {self.start_seconds}..{self.end_seconds}"
            )
        if self.end_seconds < self.start_seconds:
            raise ValueError(
                f"a segment must not end before it starts, "
                f"got {self.start_seconds}..{self.end_seconds} seconds"
            )


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video as its annotation describes it; `duration_seconds` is None where it is silent.

    Whether segments lie inside the real file is for the job that has measured it.
    """

    video_id: str
    subset: str
    duration_seconds: float | None
    segments: tuple[LabelledSegment, ...]

    def __post_init__(self) -> None:
        """Refuse an empty id and a duration that is not a positive finite number."""
        if not self.video_id:
            raise ValueError("video_id must not be empty")
        duration = self.duration_seconds
        if duration is not None and not (math.isfinite(duration) and duration > 0):
            raise ValueError(f"duration_seconds must be positive or None, got {duration}")
