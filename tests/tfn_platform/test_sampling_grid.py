import math
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_platform.sampling_grid import SamplingGrid

GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=32, short_side=256)


def test_the_default_grid_worked_by_hand() -> None:
    # Strides of 7.5 ticks: clip 0 is centred on tick 3.75, so it begins at 3.75 - 15.5 = -11.75.
    assert [GRID.first_tick(clip) for clip in range(5)] == [-12, -4, 3, 11, 18]
    assert [GRID.center_seconds(clip) for clip in range(3)] == [0.25, 0.75, 1.25]


@pytest.mark.parametrize(
    ("duration", "num_clips"),
    [("0", 1), ("0.2", 1), ("0.74", 1), ("0.75", 2), ("10", 20), ("10.24", 20), ("10.25", 21)],
)
def test_the_number_of_clips_rounds_halves_up(duration: str, num_clips: int) -> None:
    assert GRID.num_clips(Fraction(duration)) == num_clips


def test_start_alignment_begins_clips_on_the_strides() -> None:
    """The authors' released features: 8 frames at 15 fps, one after the other."""
    grid = SamplingGrid(
        Fraction(15), Fraction(8, 15), frames_per_clip=8, short_side=256, alignment="start"
    )
    assert [grid.first_tick(clip) for clip in range(3)] == [0, 8, 16]
    assert grid.center_seconds(1) == pytest.approx((8 + 3.5) / 15)


@given(
    rate=st.fractions(min_value=1, max_value=60, max_denominator=1001),
    stride=st.fractions(min_value=Fraction(1, 10), max_value=4, max_denominator=30),
    frames=st.integers(1, 64),
    clip=st.integers(0, 100_000),
)
def test_clips_are_centred_to_within_half_a_tick(
    rate: Fraction, stride: Fraction, frames: int, clip: int
) -> None:
    grid = SamplingGrid(rate, stride, frames_per_clip=frames, short_side=8)
    centre_tick = grid.first_tick(clip) + Fraction(frames - 1, 2)
    error = centre_tick - rate * stride * (clip + Fraction(1, 2))
    assert -Fraction(1, 2) < error <= Fraction(1, 2)
    if stride * rate == Fraction(15, 2):
        assert abs(error) <= Fraction(1, 4)


@given(
    rate=st.fractions(min_value=1, max_value=60, max_denominator=1001),
    stride=st.fractions(min_value=Fraction(1, 10), max_value=4, max_denominator=30),
    frames=st.integers(1, 64),
    clip=st.integers(0, 100_000),
    alignment=st.sampled_from(["center", "start"]),
)
def test_first_ticks_are_those_of_the_formula(
    rate: Fraction, stride: Fraction, frames: int, clip: int, alignment: Literal["center", "start"]
) -> None:
    """They are reckoned with whole numbers; here as the docstring has them."""
    grid = SamplingGrid(rate, stride, frames, short_side=8, alignment=alignment)
    half, stride_ticks = Fraction(1, 2), stride * rate
    centered = stride_ticks * (clip + half) - Fraction(frames - 1, 2) + half
    expected = centered if alignment == "center" else stride_ticks * clip + half
    assert grid.first_tick(clip) == math.floor(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_rate": 29.97},
        {"frame_rate": Fraction(0)},
        {"stride_seconds": Fraction(-1)},
        {"frames_per_clip": 0},
        {"short_side": 0},
        {"alignment": "end"},
    ],
)
def test_wrong_values_are_refused_by_name(wrong: dict[str, object]) -> None:
    right = {"frame_rate": Fraction(15), "stride_seconds": Fraction(1, 2), "frames_per_clip": 8}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingGrid(**{**right, "short_side": 64, **wrong})  # type: ignore[arg-type]
