import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.layers.roi_align import MIN_BIN_CLIPS, roi_align

EIGHTHS = st.integers(-40, 120)
"""Positions in eighths of a clip, which fp64 and fractions both hold exactly."""


def feature_at(features: Tensor, position: float) -> Tensor:
    """The feature [C] of one video [T, C] at a position in clips, from the definition."""
    if not 0 <= position <= len(features):
        return torch.zeros_like(features[0])
    index = min(max(position - 0.5, 0.0), len(features) - 1.0)
    left = math.floor(index)
    right = min(left + 1, len(features) - 1)
    return features[left] + (index - left) * (features[right] - features[left])


def sampled(
    features: Tensor, segment: list[float], *, num_bins: int, num_samples: int = 1000
) -> Tensor:
    """Bins [num_bins, C] of one segment, as the mean of many samples at midpoints."""
    width = (segment[1] - segment[0]) / num_bins
    bins = []
    for order in range(num_bins):
        low = segment[0] + order * width
        samples = [
            feature_at(features, low + (sample + 0.5) / num_samples * width)
            for sample in range(num_samples)
        ]
        bins.append(torch.stack(samples).mean(0))
    return torch.stack(bins)


def exact_value(values: list[int], position: Fraction) -> Fraction:
    """The feature inside the video [0, len(values)], in fractions."""
    index = min(max(position - Fraction(1, 2), Fraction(0)), Fraction(len(values) - 1))
    left = math.floor(index)
    right = min(left + 1, len(values) - 1)
    return values[left] + (index - left) * (values[right] - values[left])


def exact_bins(values: list[int], start: Fraction, end: Fraction, num_bins: int) -> list[Fraction]:
    """Trapezoids between the kinks of the curve are its very integral."""
    kinks = [Fraction(0), *(Fraction(2 * k + 1, 2) for k in range(len(values))), len(values)]
    bins = []
    for order in range(num_bins):
        low, high = (start + (end - start) * n / num_bins for n in (order, order + 1))
        if high - low < Fraction(MIN_BIN_CLIPS):
            middle, half = (low + high) / 2, Fraction(MIN_BIN_CLIPS) / 2
            low, high = middle - half, middle + half
        points = [min(max(Fraction(p), Fraction(0)), Fraction(len(values))) for p in (low, high)]
        points = sorted({*points, *(k for k in kinks if points[0] < k < points[1])})
        area = sum(
            (right - left) * (exact_value(values, left) + exact_value(values, right)) / 2
            for left, right in zip(points, points[1:], strict=False)
        )
        bins.append(area / (high - low))
    return bins


@pytest.mark.parametrize(
    "segment",
    [[1.2, 4.9], [-2.0, 3.0], [3.3, 9.0], [-4.0, 12.0], [0.0, 6.0], [2.5, 2.9], [0.1, 0.3]],
)
@pytest.mark.parametrize("num_bins", [1, 3])
def test_against_numerical_integration(segment: list[float], num_bins: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(6, 2, dtype=torch.float64)
    segments = torch.tensor([[segment]], dtype=torch.float64)
    bins = roi_align(features[None], segments, num_bins=num_bins)[0, 0]
    expected = sampled(features, segment, num_bins=num_bins)
    torch.testing.assert_close(bins, expected, rtol=0, atol=6e-3)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=9),
    st.lists(st.tuples(EIGHTHS, EIGHTHS).map(sorted), min_size=1, max_size=4),
    st.integers(1, 5),
)
@example([1, 5], [[12, 12]], 5)
def test_equals_the_integral_in_fractions(
    values: list[int], eighths: list[list[int]], num_bins: int
) -> None:
    """Segments inside, across and beyond the video, of no length and far longer than it.

    The example touches the most clips: bins without length, all widened across one centre.
    """
    features = torch.tensor(values, dtype=torch.float64)[None, :, None]
    segments = torch.tensor(eighths, dtype=torch.float64)[None] / 8
    bins = roi_align(features, segments, num_bins=num_bins)[0, :, :, 0]
    for row, (start, end) in zip(bins.tolist(), eighths, strict=True):
        expected = exact_bins(values, Fraction(start, 8), Fraction(end, 8), num_bins)
        assert row == pytest.approx([float(value) for value in expected], abs=1e-12)


def test_one_bin_by_hand() -> None:
    """Features 0, 1, 4 at 0.5, 1.5, 2.5: over [1, 2] the area is 0.375 + 0.875."""
    features = torch.tensor([[[0.0], [1.0], [4.0]]])
    segments = torch.tensor([[[1.0, 2.0], [0.0, 0.5], [2.5, 3.5]]])
    bins = roi_align(features, segments, num_bins=1)
    torch.testing.assert_close(bins.flatten(), torch.tensor([1.25, 0.0, 2.0]))


def test_narrow_segment_far_from_zero_is_the_feature_there() -> None:
    features = torch.arange(600.0)[None, :, None]
    segments = torch.tensor([[[500.25, 500.25], [500.25, 500.26]]])
    bins = roi_align(features, segments, num_bins=64)
    torch.testing.assert_close(bins, torch.full_like(bins, 499.75), rtol=1e-4, atol=0)


def test_a_long_video_keeps_its_digits_in_fp32() -> None:
    """Differences of sums over 20,000 clips would be wrong in the third digit."""
    generator = torch.Generator().manual_seed(0)
    features = 1000 + torch.randn(1, 20_000, 1, generator=generator)
    start = torch.randint(0, 19_000, (1, 40, 1), generator=generator).float()
    segments = torch.cat([start, start + 64], dim=2)
    bins = roi_align(features, segments, num_bins=32)
    expected = roi_align(features.double(), segments.double(), num_bins=32)
    torch.testing.assert_close(bins.double(), expected, rtol=1e-6, atol=0)


def segments_from(earliest: float) -> st.SearchStrategy[list[list[float]]]:
    """Two segments [start, end] in clips, inside a video of seven clips or reaching beyond it."""
    pair = st.tuples(st.floats(earliest, 9), st.floats(0.5, 12))
    return st.lists(pair.map(lambda p: [p[0], p[0] + p[1]]), min_size=2, max_size=2)


@settings(max_examples=50, deadline=None)
@given(segments_from(-3), st.integers(1, 4), st.integers(2, 4))
def test_a_bin_is_the_mean_of_its_parts(
    segments: list[list[float]], num_bins: int, parts: int
) -> None:
    features = torch.randn(1, 7, 2, generator=torch.Generator().manual_seed(1)).double()
    boxes = torch.tensor([segments], dtype=torch.float64)
    fine = roi_align(features, boxes, num_bins=num_bins * parts)
    coarse = roi_align(features, boxes, num_bins=num_bins)
    torch.testing.assert_close(fine.unflatten(2, (num_bins, parts)).mean(3), coarse)


@settings(max_examples=50, deadline=None)
@given(segments_from(0.5), st.integers(1, 5))
def test_a_video_that_starts_later_shifts_its_segments(
    segments: list[list[float]], shift: int
) -> None:
    """Clips in front change nothing for segments that reach back to the first centre at most."""
    features = torch.randn(1, 7, 2, generator=torch.Generator().manual_seed(2)).double()
    boxes = torch.tensor([segments], dtype=torch.float64)
    longer = torch.cat([torch.full((1, shift, 2), 50.0).double(), features], dim=1)
    torch.testing.assert_close(
        roi_align(longer, boxes + shift, num_bins=4), roi_align(features, boxes, num_bins=4)
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(-5, 15), st.floats(0.01, 20), st.integers(1, 9), st.integers(1, 8))
def test_constant_features_give_the_covered_share(
    start: float, width: float, length: int, num_bins: int
) -> None:
    features = torch.full((1, 9, 1), 2.0, dtype=torch.float64)
    features[0, length:] = torch.nan
    segments = torch.tensor([[[start, start + width]]], dtype=torch.float64)
    bins = roi_align(features, segments, num_bins=num_bins, lengths=torch.tensor([length]))
    inside = max(0.0, min(start + width, length) - max(start, 0.0))
    if width / num_bins >= MIN_BIN_CLIPS:
        assert bins.mean().item() == pytest.approx(2 * inside / width, abs=1e-9)
    assert (bins <= 2 + 1e-9).all()


@settings(max_examples=50, deadline=None)
@given(segments_from(-3), st.integers(1, 7))
def test_padding_is_never_read(segments: list[list[float]], length: int) -> None:
    """Alone or beside a longer video gives the same, whatever stands in the padding."""
    features = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(3))
    features[1, length:] = torch.nan
    features.requires_grad_()
    boxes = torch.tensor([segments, segments])
    lengths = torch.tensor([7, length])
    bins = roi_align(features, boxes, num_bins=4, lengths=lengths)
    alone = roi_align(features[1:, :length], boxes[1:], num_bins=4)
    torch.testing.assert_close(bins[1:], alone)
    bins.sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()
    assert not features.grad[1, length:].any()


def test_gradients() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    segments = torch.tensor([[[0.3, 3.1], [-1.0, 5.0]], [[1.0, 1.5], [2.0, 4.0]]]).double()
    lengths = torch.tensor([4, 3])
    assert torch.autograd.gradcheck(
        lambda value: roi_align(value, segments, num_bins=3, lengths=lengths), (features,)
    )


def test_no_segments_and_segments_that_are_no_numbers() -> None:
    features = torch.randn(1, 5, 2)
    assert roi_align(features, torch.zeros(1, 0, 2), num_bins=3).shape == (1, 0, 3, 2)
    segments = torch.tensor([[[math.nan, 2.0], [1.0, 3.0]]])
    bins = roi_align(features, segments, num_bins=3)
    assert bins[0, 0].isnan().all()
    torch.testing.assert_close(bins[:, 1:], roi_align(features, segments[:, 1:], num_bins=3))


@pytest.mark.parametrize(
    ("features", "segments", "num_bins", "lengths"),
    [
        ((4, 2), (1, 3, 2), 2, 1),
        ((1, 4, 2), (2, 3, 2), 2, 1),
        ((1, 4, 2), (1, 3, 2), 0, 1),
        ((1, 4, 2), (1, 3, 2), 2, 3),
    ],
)
def test_refuses_shapes(
    features: tuple[int, ...], segments: tuple[int, ...], num_bins: int, lengths: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        roi_align(
            torch.zeros(features),
            torch.zeros(segments),
            num_bins=num_bins,
            lengths=torch.ones(lengths),
        )
