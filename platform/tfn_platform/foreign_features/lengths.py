"""Do the numbers of clips fit the videos' durations, at the stride that was declared?

Programs differ in what they do at a video's ends. One that keeps whole windows only makes
(duration − clip) / stride + 1 clips of a video, one that pads both ends duration / stride. Anything
between is accepted, give or take a tolerance. A stride that is a little wrong hides in that margin
in short videos; so the slope of clips over duration, in which the ends cancel, must fit it, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

MIN_VIDEOS = 16
MIN_SPREAD_CLIPS = 30
"""The slope is trusted from so many videos on, if the middle half of them differs by so much."""
SLOPE_TOLERANCE = 0.02
MAX_PAIRED = 400
FITTING_SHARE = 0.95
FITTING_SECONDS = 1.0
COMMON_RATES = (10, 12, 15, 16, 20, 24, 25, Fraction(30000, 1001), 30, 50, 60)
COMMON_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 24, 25, 30, 32, 48, 50, 60, 64, 128)


@dataclass(frozen=True)
class StrideRule:
    """What was declared, and how far a video may be off.

    Attributes:
        stride_seconds: from a clip to the next.
        clip_seconds: length of a clip.
        tolerance_seconds: how much longer or shorter a video may be than its duration says.
        tolerance_share: the same as a share of the duration; the larger of the two counts.
    """

    stride_seconds: Fraction
    clip_seconds: Fraction
    tolerance_seconds: float
    tolerance_share: float

    def excess_clips(
        self, num_clips: NDArray[np.int64], durations: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[V] clips too many (positive) or too few, 0 where they fit without any tolerance."""
        return _excess_clips(
            num_clips, durations, stride=float(self.stride_seconds), clip=float(self.clip_seconds)
        )

    def fits(
        self, num_clips: NDArray[np.int64], durations: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """[V] whether each video's clips fit its duration (seconds) within the tolerance."""
        excess_seconds = np.abs(self.excess_clips(num_clips, durations)) * float(
            self.stride_seconds
        )
        allowed = np.maximum(self.tolerance_seconds, self.tolerance_share * durations)
        fits: NDArray[np.bool_] = excess_seconds <= allowed
        return fits


def _excess_clips(
    num_clips: NDArray[np.int64], durations: NDArray[np.float64], *, stride: float, clip: float
) -> NDArray[np.float64]:
    fewest = np.maximum(1, np.floor(np.maximum(durations - clip, 0) / stride))
    most = np.ceil(durations / stride) + 1
    above = np.maximum(num_clips - most, 0)
    below = np.maximum(fewest - num_clips, 0)
    excess: NDArray[np.float64] = above - below
    return excess


def slope_seconds(
    num_clips: NDArray[np.int64], durations: NDArray[np.float64], *, stride_seconds: Fraction
) -> float | None:
    """The stride that the lengths themselves show: the median of Δduration / Δclips over pairs.

    Theil and Sen's estimate: up to 29 % of the videos may be arbitrarily wrong.

    Args:
        num_clips: [V] clips.
        durations: [V] seconds.
        stride_seconds: the declared one; says how much spread is enough.

    Returns:
        Seconds; None where the videos are too few or too alike to tell.
    """
    if len(durations) < MIN_VIDEOS:
        return None
    chosen = np.unique(np.linspace(0, len(durations) - 1, MAX_PAIRED).round().astype(int))
    order = chosen[np.argsort(durations[chosen], kind="stable")]
    low, high = np.quantile(durations, [0.25, 0.75])
    if high - low < MIN_SPREAD_CLIPS * float(stride_seconds):
        return None
    first, second = np.triu_indices(len(order), k=1)
    gap = durations[order][second] - durations[order][first]
    # Pairs of nearly equal length say nothing but rounding.
    wide = gap >= (high - low) / 4
    steps = (num_clips[order][second] - num_clips[order][first])[wide]
    slopes = steps / gap[wide]
    slope = float(np.median(slopes))
    return 1 / slope if slope > 0 else None


def explain_lengths(
    num_clips: NDArray[np.int64],
    durations: NDArray[np.float64],
    *,
    rule: StrideRule,
    frame_rate: Fraction,
) -> str | None:
    """One sentence that says what all lengths have in common if it is not the declared stride.

    Args:
        num_clips: [V] clips.
        durations: [V] seconds, V at least 1.
        rule: what was declared.
        frame_rate: frames a second that the clips were declared to be taken at.

    Returns:
        None where the declared stride is as good as any.
    """
    stride = float(rule.stride_seconds)
    slope = slope_seconds(num_clips, durations, stride_seconds=rule.stride_seconds)
    excess = rule.excess_clips(num_clips, durations)
    is_off = slope is not None and abs(slope / stride - 1) > SLOPE_TOLERANCE
    if not is_off and np.mean(excess == 0) >= 0.5:
        return None
    if len(durations) >= MIN_VIDEOS and len(set(num_clips.tolist())) == 1 < len(
        set(np.round(durations / stride).tolist())
    ):
        return (
            f"every video has {num_clips[0]} clips, whatever its duration: these features were "
            "resized to one length and have no stride; import them as they were before that"
        )
    estimate = slope or float(np.median(durations / num_clips))
    named = _named_stride(num_clips, durations, estimate=estimate, rule=rule, frame_rate=frame_rate)
    if named is not None:
        stride_found, count = named
        return f"stride_seconds {stride_found} fits {count} of {len(durations)} videos"
    low, high = np.quantile(durations / num_clips, [0.05, 0.95])
    if high > 1.1 * low and slope is None:
        return (
            f"no one stride fits: a clip stands for {low:.3g} to {high:.3g} s, as in features that "
            "were taken every so many frames of videos of different frame rates"
        )
    return f"the lengths go with a stride of about {estimate:.4g} s, not {stride:.4g} s"


def _named_stride(
    num_clips: NDArray[np.int64],
    durations: NDArray[np.float64],
    *,
    estimate: float,
    rule: StrideRule,
    frame_rate: Fraction,
) -> tuple[Fraction, int] | None:
    """The simplest usual stride near the estimate that fits nearly all videos, and how many."""
    rates = {Fraction(rate) for rate in (*COMMON_RATES, frame_rate)}
    usual = {Fraction(step) / rate for step in COMMON_STEPS for rate in rates}
    near = [stride for stride in usual if abs(float(stride) / estimate - 1) < SLOPE_TOLERANCE / 2]
    for stride in _simplest_first(near):
        if stride == rule.stride_seconds:
            continue
        excess = _excess_clips(
            num_clips, durations, stride=float(stride), clip=float(rule.clip_seconds)
        )
        # Durations are known to within a second, whatever the stride.
        count = int(np.sum(np.abs(excess) * float(stride) <= float(stride) + FITTING_SECONDS))
        if count >= FITTING_SHARE * len(durations):
            return stride, count
    return None


def _simplest_first(strides: Sequence[Fraction]) -> list[Fraction]:
    return sorted(strides, key=lambda stride: (stride.denominator + stride.numerator, stride))
