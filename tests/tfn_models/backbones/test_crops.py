"""Random and evenly spread crops against loops over clips, frames and pixels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.backbones.crops import (
    ClipCrops,
    RandomCropConfig,
    apply_crops,
    draw_crops,
    resize_short_side,
    spread_crops,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_frames(*shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 3), generator=seeded(1), dtype=torch.uint8)


def read_pixel(image: list[list[list[float]]], y: float, x: float, channel: int) -> float:
    """An image [H][W][3] between pixel centres: linear along rows and columns, held at borders."""
    y, x = min(max(y, 0), len(image) - 1), min(max(x, 0), len(image[0]) - 1)
    total = 0.0
    for row in range(len(image)):
        for column in range(len(image[0])):
            weight = max(0.0, 1 - abs(row - y)) * max(0.0, 1 - abs(column - x))
            total += weight * image[row][column][channel]
    return total


def slow_resize(image: Tensor, height: int, width: int) -> Tensor:
    pixels = image.tolist()
    scale_y, scale_x = image.shape[0] / height, image.shape[1] / width
    resized = torch.zeros(height, width, 3)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                source_y, source_x = (y + 0.5) * scale_y - 0.5, (x + 0.5) * scale_x - 0.5
                resized[y, x, c] = read_pixel(pixels, source_y, source_x, c)
    return resized


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    low=st.integers(3, 8),
    span=st.integers(0, 3),
    as_float=st.booleans(),
)
def test_each_clip_equals_a_loop_over_pixels(
    seed: int, height: int, width: int, low: int, span: int, as_float: bool
) -> None:
    config = RandomCropConfig(short_side_low=low, short_side_high=low + span, size=3)
    frames = random_frames(2, 2, height, width)
    frames = frames.float() if as_float else frames
    crops = draw_crops(2, height=height, width=width, config=config, generator=seeded(seed))
    cropped = apply_crops(frames, crops, size=3)
    assert cropped.dtype == torch.float32
    for clip in range(2):
        new_height, new_width = int(crops.height[clip]), int(crops.width[clip])
        assert low <= min(new_height, new_width) <= low + span
        longer = max(height, width) * min(new_height, new_width) / min(height, width)
        assert max(new_height, new_width) == math.floor(longer + 1e-9)
        top, left = int(crops.top[clip]), int(crops.left[clip])
        for frame in range(2):
            resized = slow_resize(frames[clip, frame].float(), new_height, new_width)
            expected = resized[top : top + 3, left : left + 3]
            assert expected.shape == (3, 3, 3)
            torch.testing.assert_close(cropped[clip, frame], expected, rtol=0, atol=1e-2)


def test_twice_the_size_worked_by_hand() -> None:
    """Columns 0, 4 on four pixels: 0, 1, 3, 4; the square of two from column 1 shows 1 and 3."""
    row = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 2, 1).expand(-1, -1, 2, -1, 3)
    one = torch.tensor([1])
    crops = ClipCrops(height=4 * one, width=4 * one, top=0 * one, left=one)
    assert apply_crops(row, crops, size=2)[0, 0, :, :, 0].tolist() == [[1, 3], [1, 3]]


def test_draws_reach_every_scale_and_place_evenly() -> None:
    config = RandomCropConfig(short_side_low=4, short_side_high=6, size=4)
    crops = draw_crops(6000, height=10, width=20, config=config, generator=seeded())
    assert torch.equal(crops.width, 2 * crops.height)
    for side in (4, 5, 6):
        chosen = crops.height == side
        assert 0.3 < float(chosen.float().mean()) < 0.37
        assert set(crops.top[chosen].tolist()) == set(range(side - 4 + 1))
        lefts = crops.left[chosen].bincount().float() / int(chosen.sum())
        assert len(lefts) == 2 * side - 4 + 1
        assert float((lefts * len(lefts) - 1).abs().max()) < 0.3


def test_upright_frames_are_scaled_by_their_width() -> None:
    config = RandomCropConfig(short_side_low=5, short_side_high=5, size=5)
    crops = draw_crops(3, height=7, width=3, config=config, generator=seeded())
    assert crops.width.tolist() == [5] * 3
    assert crops.height.tolist() == [11] * 3
    assert crops.left.tolist() == [0] * 3


def test_same_seed_gives_the_same_crops() -> None:
    drawn = [
        draw_crops(4, height=9, width=12, config=RandomCropConfig(), generator=seeded(seed))
        for seed in (5, 5, 6)
    ]
    once, again, other = (torch.stack([crops.height, crops.top, crops.left]) for crops in drawn)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize(("height", "width"), [(4, 7), (7, 4), (5, 5)])
def test_resized_short_side_equals_a_loop(height: int, width: int) -> None:
    frames = random_frames(1, 2, height, width)
    resized = resize_short_side(frames, 6)
    shape = (height * 6 // min(height, width), width * 6 // min(height, width))
    assert resized.shape == (1, 2, *shape, 3)
    torch.testing.assert_close(
        resized[0, 1], slow_resize(frames[0, 1].float(), *shape), rtol=0, atol=1e-2
    )


def test_same_size_is_unchanged() -> None:
    frames = random_frames(2, 2, 4, 6)
    assert torch.equal(resize_short_side(frames, 4), frames.float())


@pytest.mark.parametrize(
    ("height", "width", "num_crops", "places"),
    [
        (2, 7, 3, [(0, 0), (0, 3), (0, 5)]),
        (7, 2, 3, [(0, 0), (3, 0), (5, 0)]),
        (4, 7, 1, [(1, 3)]),
        (3, 6, 5, [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]),
        (2, 2, 3, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_spread_crops_by_hand(
    height: int, width: int, num_crops: int, places: list[tuple[int, int]]
) -> None:
    frames = random_frames(2, 3, height, width)
    crops = spread_crops(frames, size=2, num_crops=num_crops)
    assert crops.shape == (2, num_crops, 3, 2, 2, 3)
    assert crops.dtype == torch.uint8
    for crop, (top, left) in enumerate(places):
        assert torch.equal(crops[:, crop], frames[:, :, top : top + 2, left : left + 2])


@pytest.mark.parametrize(("low", "high", "size"), [(256, 255, 224), (200, 320, 224), (256, 320, 0)])
def test_impossible_settings_are_refused(low: int, high: int, size: int) -> None:
    with pytest.raises(ValueError, match="size <= short_side_low <= short_side_high"):
        RandomCropConfig(short_side_low=low, short_side_high=high, size=size)


def test_wrong_shapes_are_refused() -> None:
    one = torch.ones(2, dtype=torch.int64)
    crops = ClipCrops(height=4 * one, width=4 * one, top=one, left=one)
    with pytest.raises(ValueError, match=r"\[2, L, H, W, 3\]"):
        apply_crops(random_frames(3, 2, 4, 4), crops, size=2)
    with pytest.raises(ValueError, match="one B"):
        ClipCrops(height=one, width=one, top=one, left=one[:1])
    with pytest.raises(ValueError, match="got .*, 5 and 1"):
        spread_crops(random_frames(1, 2, 4, 6), size=5, num_crops=1)
    with pytest.raises(ValueError, match="short_side must be at least 1, got 0"):
        resize_short_side(random_frames(1, 4, 4), 0)
