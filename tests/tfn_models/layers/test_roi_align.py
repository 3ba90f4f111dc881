import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tfn_models.layers.roi_align import roi_align


def feature_at(features: torch.Tensor, position: float) -> torch.Tensor:
    """The feature [C] of one video [T, C] at a position in clips, from the definition."""
    if not 0 <= position <= len(features):
        return torch.zeros_like(features[0])
    index = min(max(position - 0.5, 0.0), len(features) - 1.0)
    left = math.floor(index)
    right = min(left + 1, len(features) - 1)
    return features[left] + (index - left) * (features[right] - features[left])


def sampled(
    features: torch.Tensor, segment: list[float], *, num_bins: int, num_samples: int = 2000
) -> torch.Tensor:
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
    torch.testing.assert_close(bins, expected, rtol=0, atol=3e-3)


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
    if width / num_bins >= 0.01:
        assert bins.mean().item() == pytest.approx(2 * inside / width, abs=1e-9)
    assert (bins <= 2 + 1e-9).all()


def test_alone_or_beside_longer_videos_gives_the_same() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 7, 3)
    features[1, 4:] = torch.nan
    segments = torch.rand(2, 5, 1) * 6 + torch.tensor([-1.0, 4.0])
    bins = roi_align(features, segments, num_bins=4, lengths=torch.tensor([7, 4]))
    torch.testing.assert_close(bins[1:], roi_align(features[1:, :4], segments[1:], num_bins=4))


def test_gradients() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    segments = torch.tensor([[[0.3, 3.1], [-1.0, 5.0]], [[1.0, 1.5], [2.0, 4.0]]]).double()
    lengths = torch.tensor([4, 3])
    assert torch.autograd.gradcheck(
        lambda value: roi_align(value, segments, num_bins=3, lengths=lengths), (features,)
    )


@pytest.mark.parametrize(
    ("features", "segments", "num_bins"),
    [((4, 2), (1, 3, 2), 2), ((1, 4, 2), (2, 3, 2), 2), ((1, 4, 2), (1, 3, 2), 0)],
)
def test_refuses_shapes(
    features: tuple[int, ...], segments: tuple[int, ...], num_bins: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        roi_align(torch.zeros(features), torch.zeros(segments), num_bins=num_bins)
