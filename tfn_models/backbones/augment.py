"""Augmentation of clips for fine-tuning: one transform a clip, the same for all its frames.

The choice of transforms is ours (the paper names none): changes of contrast, sign, brightness and
position leave an action what it is, while a flip may turn it into another one, so flips are off
unless asked for. `SLOWFAST_RECIPE` is what SlowFast was trained with on Kinetics instead: random
scale, crop and flip.

Shapes: B clips, L frames, H W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tfn_models.backbones.crops import RandomCropConfig, apply_crops, draw_crops


@dataclass(frozen=True)
class AugmentConfig:
    """What may happen to a training clip. Each transform is off at 0 (contrast: at 1 to 1)."""

    contrast_low: float = 0.6
    """Smallest factor on the distance of a pixel from mid-grey, above 0."""
    contrast_high: float = 1.4
    """Largest such factor; drawn evenly between the two."""
    invert_probability: float = 0.5
    """Probability of the negative: dark for bright."""
    max_brightness: float = 0.1
    """Largest change of all pixels, up or down, in units of full scale."""
    max_shift_pixels: int = 5
    """Largest shift down or up and right or left; border pixels fill what comes in."""
    flip_probability: float = 0.0
    """Probability of swapping left and right."""
    random_crop: RandomCropConfig | None = None
    """Random scale and crop, before everything else; None leaves the whole frame."""

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or no probabilities."""
        if not 0 < self.contrast_low <= self.contrast_high:
            raise ValueError(
                "contrast_low must be above 0 and at most contrast_high, "
                f"got {self.contrast_low} and {self.contrast_high}"
            )
        for name in ("max_brightness", "max_shift_pixels"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("invert_probability", "flip_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")


SLOWFAST_RECIPE = AugmentConfig(
    contrast_low=1,
    contrast_high=1,
    invert_probability=0,
    max_brightness=0,
    max_shift_pixels=0,
    flip_probability=0.5,
    random_crop=RandomCropConfig(),
)
"""Shorter side of 256 to 320 pixels, a crop of 224, and a flip (SlowFast paper, section 4)."""


@dataclass(frozen=True)
class ClipTransforms:
    """The transforms drawn for a batch, one entry a clip."""

    gain: Tensor
    """[B] float32: factor on the distance from mid-grey, negative where inverted."""
    brightness: Tensor
    """[B] float32: added to all pixels, in units of full scale."""
    shift_down: Tensor
    """[B] int64, pixels."""
    shift_right: Tensor
    """[B] int64, pixels; applied after the flip."""
    flip: Tensor
    """[B] bool: swap left and right."""

    def __post_init__(self) -> None:
        """Check that there is one entry a clip throughout."""
        shapes = {name: list(value.shape) for name, value in vars(self).items()}
        if any(shape != [self.gain.numel()] for shape in shapes.values()):
            raise ValueError(f"all fields must be [B] with one B, got {shapes}")


def draw_transforms(
    num_clips: int, *, config: AugmentConfig, generator: torch.Generator
) -> ClipTransforms:
    """Draw one transform for each of `num_clips` clips; the same numbers whatever is switched on.

    Args:
        num_clips: B.
        config: the ranges.
        generator: a CPU generator.
    """
    uniform = torch.rand(6, num_clips, generator=generator)
    contrast = config.contrast_low + (config.contrast_high - config.contrast_low) * uniform[0]
    num_shifts = 2 * config.max_shift_pixels + 1
    shifts = (uniform[3:5] * num_shifts).long().clamp(max=num_shifts - 1) - config.max_shift_pixels
    return ClipTransforms(
        gain=torch.where(uniform[1] < config.invert_probability, -contrast, contrast),
        brightness=config.max_brightness * (2 * uniform[2] - 1),
        shift_down=shifts[0],
        shift_right=shifts[1],
        flip=uniform[5] < config.flip_probability,
    )


def apply_transforms(frames: Tensor, transforms: ClipTransforms) -> Tensor:
    """Transform each clip of a batch, all its frames alike.

    Args:
        frames: [B, L, H, W, 3], uint8, or float on the same scale of 0 to 255.
        transforms: one a clip.

    Returns:
        [B, L, H, W, 3] float32. Values may leave 0 to 255: cutting them off would lose detail.

    Raises:
        ValueError: frames are of another shape, or not as many clips as there are transforms.
    """
    num_clips = transforms.gain.numel()
    if frames.ndim != 5 or frames.shape[0] != num_clips:
        raise ValueError(f"frames must be [{num_clips}, L, H, W, 3], got {list(frames.shape)}")
    device = frames.device
    rows = _source_index(frames.shape[2], transforms.shift_down.to(device))
    columns = _source_index(frames.shape[3], transforms.shift_right.to(device))
    mirrored = frames.shape[3] - 1 - columns
    columns = torch.where(transforms.flip.to(device)[:, None], mirrored, columns)
    clip = torch.arange(num_clips, device=device)[:, None, None, None]
    frame = torch.arange(frames.shape[1], device=device)[None, :, None, None]
    moved = frames[clip, frame, rows[:, None, :, None], columns[:, None, None, :]].float()
    gain = transforms.gain.to(device)[:, None, None, None, None]
    brightness = 255 * transforms.brightness.to(device)[:, None, None, None, None]
    return moved.sub_(127.5).mul_(gain).add_(brightness + 127.5)


def augment_frames(frames: Tensor, *, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Draw and apply: [B, L, H, W, 3] of 0 to 255 to float32, of the same shape unless cropped.

    Args:
        frames: uint8, or float on the same scale.
        config: the ranges. A random crop of `size` makes it [B, L, size, size, 3].
        generator: a CPU generator. The crops are drawn after everything else, which therefore
            does not depend on them.

    Raises:
        ValueError: frames have another shape.
    """
    transforms = draw_transforms(frames.shape[0], config=config, generator=generator)
    if config.random_crop is not None:
        height, width = frames.shape[2:4]
        crops = draw_crops(
            frames.shape[0],
            height=height,
            width=width,
            config=config.random_crop,
            generator=generator,
        )
        frames = apply_crops(frames, crops, size=config.random_crop.size)
    return apply_transforms(frames, transforms)


def _source_index(length: int, shift: Tensor) -> Tensor:
    """[B, length]: which pixel of a row (or column) comes to each place, the border repeated."""
    places = torch.arange(length, device=shift.device)
    return (places - shift[:, None]).clamp(0, length - 1)
