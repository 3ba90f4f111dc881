"""Augmentation against a loop over clips, frames and pixels."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.backbones.augment import (
    SLOWFAST_RECIPE,
    AugmentConfig,
    ClipTransforms,
    apply_transforms,
    augment_frames,
    draw_transforms,
)
from tfn_models.backbones.crops import RandomCropConfig, apply_crops, draw_crops

NOTHING = AugmentConfig(
    contrast_low=1, contrast_high=1, invert_probability=0, max_brightness=0, max_shift_pixels=0
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_frames(*shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 3), generator=seeded(1), dtype=torch.uint8)


def slow_transforms(frames: Tensor, transforms: ClipTransforms) -> Tensor:
    """The definition, one pixel after another."""
    num_clips, num_frames, height, width, _ = frames.shape
    out = torch.zeros(frames.shape)
    for b in range(num_clips):
        gain, bright = float(transforms.gain[b]), float(transforms.brightness[b])
        for f in range(num_frames):
            clip = frames[b, f].float()
            image = clip.flip(1) if transforms.flip[b] else clip
            for y in range(height):
                for x in range(width):
                    source_y = min(max(y - int(transforms.shift_down[b]), 0), height - 1)
                    source_x = min(max(x - int(transforms.shift_right[b]), 0), width - 1)
                    pixel = image[source_y, source_x]
                    out[b, f, y, x] = (pixel - 127.5) * gain + 127.5 + 255 * bright
    return out


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    max_shift_pixels=st.integers(0, 9),
    as_float=st.booleans(),
)
def test_equals_a_loop_over_pixels(
    seed: int, height: int, width: int, max_shift_pixels: int, as_float: bool
) -> None:
    config = AugmentConfig(max_shift_pixels=max_shift_pixels, flip_probability=0.5)
    frames = random_frames(3, 2, height, width)
    frames = frames.float() if as_float else frames
    transforms = draw_transforms(3, config=config, generator=seeded(seed))
    expected = slow_transforms(frames, transforms)
    torch.testing.assert_close(apply_transforms(frames, transforms), expected, rtol=0, atol=1e-4)


def test_inverted_shifted_row_worked_by_hand() -> None:
    frames = torch.tensor([10.0, 20.0, 30.0]).reshape(1, 1, 1, 3, 1).expand(-1, -1, -1, -1, 3)
    transforms = ClipTransforms(
        gain=torch.tensor([-1.0]),
        brightness=torch.tensor([0.0]),
        shift_down=torch.tensor([0]),
        shift_right=torch.tensor([1]),
        flip=torch.tensor([False]),
    )
    assert apply_transforms(frames, transforms)[0, 0, 0, :, 0].tolist() == [245, 245, 235]


def test_with_everything_off_frames_stay_and_input_is_not_changed() -> None:
    for frames in (random_frames(4, 3, 6, 5), random_frames(4, 3, 6, 5).float()):
        before = frames.clone()
        assert torch.equal(
            augment_frames(frames, config=NOTHING, generator=seeded()), frames.float()
        )
        augment_frames(frames, config=AugmentConfig(), generator=seeded())
        assert torch.equal(frames, before)


def test_draws_stay_in_their_ranges_and_reach_both_ends() -> None:
    config = AugmentConfig(contrast_low=0.5, contrast_high=2, max_brightness=0.2)
    drawn = draw_transforms(4000, config=config, generator=seeded())
    assert 0.5 <= float(drawn.gain.abs().min()) < 0.51
    assert 1.98 < float(drawn.gain.abs().max()) <= 2
    assert 0.45 < float((drawn.gain < 0).float().mean()) < 0.55
    assert 0.19 < float(drawn.brightness.abs().max()) <= 0.2
    for shifts in (drawn.shift_down, drawn.shift_right):
        assert set(shifts.tolist()) == set(range(-5, 6))
    assert not drawn.flip.any()


def test_same_seed_gives_the_same_bits() -> None:
    frames = random_frames(4, 3, 9, 9)
    once, again, other = (
        augment_frames(frames, config=AugmentConfig(), generator=seeded(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_random_crop_comes_first_and_leaves_the_other_draws_alone() -> None:
    crop = RandomCropConfig(short_side_low=6, short_side_high=9, size=5)
    frames = random_frames(4, 3, 8, 10)
    whole = AugmentConfig(flip_probability=0.5)
    augmented = augment_frames(frames, config=replace(whole, random_crop=crop), generator=seeded(3))
    generator = seeded(3)
    transforms = draw_transforms(4, config=whole, generator=generator)
    crops = draw_crops(4, height=8, width=10, config=crop, generator=generator)
    expected = apply_transforms(apply_crops(frames, crops, size=5), transforms)
    assert augmented.shape == (4, 3, 5, 5, 3)
    assert torch.equal(augmented, expected)


def test_without_a_crop_six_numbers_a_clip_are_drawn() -> None:
    """Results of earlier versions depend on it."""
    generator, counted = seeded(), seeded()
    augment_frames(random_frames(4, 2, 5, 5), config=AugmentConfig(), generator=generator)
    torch.rand(6, 4, generator=counted)
    assert torch.equal(generator.get_state(), counted.get_state())


def test_the_recipe_of_slowfast_scales_crops_and_flips_only() -> None:
    """A constant clip stays what it is, at any scale."""
    frames = torch.full((2, 2, 64, 80, 3), 37, dtype=torch.uint8)
    augmented = augment_frames(frames, config=SLOWFAST_RECIPE, generator=seeded())
    assert augmented.shape == (2, 2, 224, 224, 3)
    torch.testing.assert_close(augmented, torch.full_like(augmented, 37.0))
    drawn = draw_transforms(500, config=SLOWFAST_RECIPE, generator=seeded())
    assert 0.4 < float(drawn.flip.float().mean()) < 0.6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast_low": 0.0}, "contrast_low"),
        ({"contrast_low": 2.0, "contrast_high": 1.0}, "contrast_high"),
        ({"max_brightness": -0.1}, "max_brightness"),
        ({"max_shift_pixels": -1}, "max_shift_pixels"),
        ({"invert_probability": 1.5}, "invert_probability"),
        ({"flip_probability": -0.5}, "flip_probability"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**change)  # type: ignore[arg-type]


def test_wrong_shapes_are_refused() -> None:
    drawn = draw_transforms(2, config=AugmentConfig(), generator=seeded())
    with pytest.raises(ValueError, match=r"\[2, L, H, W, 3\]"):
        apply_transforms(random_frames(3, 2, 4, 4), drawn)
    with pytest.raises(ValueError, match="one B"):
        ClipTransforms(drawn.gain, drawn.brightness, torch.zeros(3), drawn.shift_right, drawn.flip)
