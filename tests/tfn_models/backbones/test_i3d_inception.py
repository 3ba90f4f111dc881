"""Inception I3D against features of a port of the authors' network, and its padding by loops."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tfn_models.backbones.golden import (
    TOLERANCE,
    golden_clips,
    golden_error,
    golden_weights,
    load_golden,
)
from tfn_models.backbones.i3d_inception import (
    I3D_INCEPTION,
    ConvUnit,
    I3dInception,
    I3dInceptionConfig,
    build_i3d_inception,
    max_pool_same,
    same_padding,
)

SMALL = I3dInceptionConfig(num_classes=3, channel_divisor=8)


def build(config: I3dInceptionConfig) -> I3dInception:
    torch.manual_seed(0)
    return build_i3d_inception(config)


def test_features_are_those_of_the_port() -> None:
    model = build_i3d_inception(I3D_INCEPTION)
    load_golden(model, golden_weights("i3d_inception", norm="bn", conv="conv3d"))
    assert I3D_INCEPTION.feature_dim == 1024
    clips = golden_clips("i3d_inception", model, num_frames=16)
    assert golden_error("i3d_inception", model, clips) < TOLERANCE


@given(size=st.integers(1, 60), kernel=st.integers(1, 9), stride=st.integers(1, 4))
def test_same_padding_lets_windows_cover_all_and_no_more(
    size: int, kernel: int, stride: int
) -> None:
    """The definition: ceil(size / stride) windows, the fewest rows added, the odd one behind."""
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    num_windows = math.ceil(size / stride)
    reached = (num_windows - 1) * stride + kernel
    assert before + size + after == max(reached, size)


def test_same_padding_worked_by_hand() -> None:
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(33, 3, 2) == (1, 1)
    assert same_padding(28, 3, 2) == (0, 1)
    assert same_padding(7, 2, 2) == (0, 1)


def window(x: Tensor, place: tuple[int, ...], kernel: tuple[int, ...], stride: Any) -> list[Any]:
    """The pixels [C] under a window, None where it reaches outside."""
    starts = [
        p * s - same_padding(n, k, s)[0]
        for p, s, n, k in zip(place, stride, x.shape[1:], kernel, strict=True)
    ]
    pixels = []
    for offset in itertools.product(*map(range, kernel)):
        at = [start + o for start, o in zip(starts, offset, strict=True)]
        inside = all(0 <= a < n for a, n in zip(at, x.shape[1:], strict=True))
        pixels.append(x[:, at[0], at[1], at[2]] if inside else None)
    return pixels


@pytest.mark.parametrize("size", [(4, 5, 6), (1, 2, 3), (3, 4, 7)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        ((3, 3, 3), (1, 1, 1)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((1, 3, 3), (1, 2, 2)),
    ],
)
def test_pooling_equals_a_loop_over_windows(size: Any, kernel: Any, stride: Any) -> None:
    """Also of negative numbers, which zeros around them would beat."""
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(0)) - 3
    pooled = max_pool_same(x[None], kernel, stride)[0]
    assert pooled.shape[1:] == tuple(math.ceil(n / s) for n, s in zip(size, stride, strict=True))
    for place in itertools.product(*map(range, pooled.shape[1:])):
        seen = [pixel for pixel in window(x, place, kernel, stride) if pixel is not None]
        assert torch.equal(pooled[:, *place], torch.stack(seen).amax(0))


@pytest.mark.parametrize("size", [(4, 5, 6), (1, 2, 8)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (7, 2), (1, 1), (3, 2)])
def test_convolution_equals_a_loop_over_windows(size: Any, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    unit = ConvUnit(2, 3, kernel=kernel, stride=stride).double().eval()
    nn.init.normal_(unit.bn.bias)
    x = torch.randn(2, *size, dtype=torch.float64)
    made = unit(x[None])[0]
    assert made.shape[1:] == tuple(math.ceil(n / stride) for n in size)
    weight = unit.conv3d.weight.flatten(2)
    for place in itertools.product(*map(range, made.shape[1:])):
        total = torch.zeros(3, dtype=torch.float64)
        for tap, pixel in enumerate(window(x, place, (kernel,) * 3, (stride,) * 3)):
            if pixel is not None:
                total = total + weight[:, :, tap] @ pixel
        expected = (total / math.sqrt(1 + 1e-3) + unit.bn.bias).clamp(min=0)
        torch.testing.assert_close(made[:, *place], expected)


@pytest.mark.parametrize("num_frames", [1, 7, 16])
def test_clips_of_any_length_and_size(num_frames: int) -> None:
    model = build(SMALL).eval()
    clips = torch.randn(2, 3, num_frames, 33, 40)
    assert model.forward_features(clips).shape == (2, 128)
    assert model(clips).shape == (2, 3)


def test_frames_between_are_passed_over() -> None:
    model = build(SMALL).eval()
    other = build(replace(SMALL, frame_stride=3)).eval()
    other.load_state_dict(model.state_dict())
    clips = torch.randn(1, 3, 16, 32, 32)
    expected = model.forward_features(clips[:, :, [0, 3, 6, 9, 12, 15]])
    torch.testing.assert_close(other.forward_features(clips), expected)


def test_the_published_weights_want_frames_from_minus_one_to_one() -> None:
    assert (I3D_INCEPTION.mean, I3D_INCEPTION.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_stride": 0}, "frame_stride must be at least 1, got 0"),
        ({"channel_divisor": 3}, "channel_divisor must be 1, 2, 4 or 8, got 3"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_a_clip_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        build(SMALL).forward_features(torch.zeros(1, 3, 0, 32, 32))
