"""A right stride is never refused, a wrong one never accepted, and its name is told."""

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest

from tfn_platform.foreign_features.lengths import StrideRule, explain_lengths, slope_seconds

CLIP = Fraction(32, 15)
STRIDES = [Fraction(1, 2), Fraction(8, 15), Fraction(16, 15), Fraction(2, 15), Fraction(1)]
# What programs make of a duration, by the stride and the length of a clip.
ENDS: dict[str, Callable[[float, float, float], int]] = {
    "centred": lambda d, s, c: max(1, floor(d / s + 0.5)),
    "whole windows": lambda d, s, c: max(1, floor((d - c) / s) + 1),
    "padded": lambda d, s, c: ceil(d / s) + 1,
    "cut": lambda d, s, c: max(1, floor(d / s)),
}


def rule(stride: Fraction, *, seconds: float = 2.0, share: float = 0.02) -> StrideRule:
    return StrideRule(stride, CLIP, tolerance_seconds=seconds, tolerance_share=share)


def made(
    stride: Fraction, ends: str, *, seed: int, count: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Videos whose durations are known to within some tenths of a second."""
    rng = np.random.default_rng(seed)
    durations = rng.uniform(10, 220, count)
    real = durations + rng.normal(0, 0.3, count)
    clips = [ENDS[ends](d, float(stride), float(CLIP)) for d in real]
    return np.array(clips, np.int64), durations


def said(declared: Fraction, clips: np.ndarray, durations: np.ndarray) -> str | None:
    return explain_lengths(clips, durations, rule=rule(declared), frame_rate=Fraction(15))


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_the_right_stride_is_accepted(stride: Fraction, ends: str) -> None:
    for seed in range(5):
        clips, durations = made(stride, ends, seed=seed)
        assert said(stride, clips, durations) is None
        assert rule(stride).fits(clips, durations).all()


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("declared", STRIDES, ids=str)
@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_a_wrong_stride_is_found_and_the_right_one_named(
    declared: Fraction, stride: Fraction, ends: str
) -> None:
    if declared == stride:
        return
    clips, durations = made(stride, ends, seed=3)
    assert said(declared, clips, durations) == f"stride_seconds {stride} fits 60 of 60 videos"


def test_videos_that_are_simply_wrong_do_not_move_the_stride() -> None:
    clips, durations = made(Fraction(1, 2), "centred", seed=1)
    clips[::6] = 3
    assert said(Fraction(1, 2), clips, durations) is None
    assert rule(Fraction(1, 2)).fits(clips, durations).sum() == 50
    text = said(Fraction(8, 15), clips, durations)
    assert text is not None
    assert "0.5" in text


def test_in_short_videos_only_the_slope_shows_a_wrong_stride() -> None:
    """Each of them could have lost a clip at its ends."""
    durations = np.random.default_rng(0).uniform(10, 45, 80)
    clips = np.array([ENDS["centred"](d, 8 / 15, float(CLIP)) for d in durations], np.int64)
    assert np.mean(rule(Fraction(1, 2)).excess_clips(clips, durations) == 0) > 0.8
    assert rule(Fraction(1, 2)).fits(clips, durations).all()
    assert said(Fraction(1, 2), clips, durations) == "stride_seconds 8/15 fits 80 of 80 videos"


def test_too_few_videos_are_judged_one_by_one() -> None:
    clips, durations = made(Fraction(8, 15), "centred", seed=1, count=8)
    assert slope_seconds(clips, durations, stride_seconds=Fraction(1, 2)) is None
    long = durations > 100
    assert not rule(Fraction(1, 2)).fits(clips, durations)[long].any()


def test_videos_of_one_length_have_no_slope() -> None:
    clips, durations = np.full(50, 60), np.full(50, 30.0)
    assert slope_seconds(clips, durations, stride_seconds=Fraction(1, 2)) is None
    assert said(Fraction(1, 2), clips, durations) is None


def test_resized_features_are_recognised() -> None:
    _, durations = made(Fraction(1, 2), "centred", seed=1)
    text = said(Fraction(1, 2), np.full(60, 100), durations)
    assert text is not None
    assert "100 clips, whatever its duration" in text


def test_videos_of_nearly_one_length_may_have_equally_many_clips() -> None:
    """They were taken for features that were resized to one length."""
    durations = np.linspace(10.0, 10.4, 40)
    clips = np.full(40, 20)
    assert rule(Fraction(1, 2)).excess_clips(clips, durations).tolist() == [0] * 40
    assert said(Fraction(1, 2), clips, durations) is None


def test_features_on_the_videos_own_frame_rates_are_recognised() -> None:
    rng = np.random.default_rng(0)
    durations = rng.uniform(20, 21, 60)
    clips = (durations / (16 / rng.choice([15, 25, 30], 60))).astype(np.int64)
    text = said(Fraction(1, 4), clips, durations)
    assert text is not None
    assert "no one stride fits" in text


def test_the_margin_by_hand() -> None:
    """10 s in steps of 1/2 s, clips of 32/15 s: 15 whole windows, no more than 21 padded ones."""
    clips = np.array([13, 14, 15, 20, 21, 22, 40])
    excess = rule(Fraction(1, 2)).excess_clips(clips, np.full(7, 10.0))
    assert excess.tolist() == [-2, -1, 0, 0, 0, 1, 19]


@pytest.mark.parametrize(
    ("clips", "duration", "fits"),
    [(25, 10.0, True), (26, 10.0, False), (11, 10.0, True), (10, 10.0, False), (1, 0.1, True)],
)
def test_the_tolerance_by_hand(clips: int, duration: float, fits: bool) -> None:
    """Two seconds are four clips of 1/2 s."""
    found = rule(Fraction(1, 2)).fits(np.array([clips]), np.array([duration]))
    assert bool(found[0]) is fits


def test_the_larger_tolerance_counts() -> None:
    clips, durations = np.array([2090]), np.array([1000.0])
    assert rule(Fraction(1, 2), share=0.05).fits(clips, durations)[0]
    assert not rule(Fraction(1, 2), share=0.04).fits(clips, durations)[0]
