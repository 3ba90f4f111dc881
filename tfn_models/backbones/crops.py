"""Where a backbone looks: random scales and crops to train, evenly spread crops to test.

As in the SlowFast paper (Feichtenhofer et al., ICCV 2019, section 4, "Training" and "Inference")
and PySlowFast: to train, a clip's shorter side is resized to a random length and a square is cut
out anywhere; to test, it is 256 pixels long and one or three squares are cut along the longer one.
Fine-tuning draws the former; the latter, `spread_crops`, no job uses: extraction looks at the whole
frame or its central square.

Shapes: B clips, L frames, H W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RandomCropConfig:
    """Random scale and crop of a training clip; the defaults are SlowFast's on Kinetics."""

    short_side_low: int = 256
    """Shortest length that the shorter side is resized to, pixels."""
    short_side_high: int = 320
    """Longest such length; drawn evenly from all between, both included."""
    size: int = 224
    """Side of the square that is cut out, pixels."""

    def __post_init__(self) -> None:
        """Refuse ranges that are empty and squares that do not fit in."""
        if not 1 <= self.size <= self.short_side_low <= self.short_side_high:
            raise ValueError(
                "a random crop needs 1 <= size <= short_side_low <= short_side_high, "
                f"got {self.size}, {self.short_side_low} and {self.short_side_high}"
            )


@dataclass(frozen=True)
class ClipCrops:
    """The crops drawn for a batch, one entry a clip, int64 in pixels."""

    height: Tensor
    """[B] frames are resized to this height ..."""
    width: Tensor
    """[B] ... and this width,"""
    top: Tensor
    """[B] then the square starts at this row ..."""
    left: Tensor
    """[B] ... and this column."""

    def __post_init__(self) -> None:
        """Check that there is one entry a clip throughout."""
        shapes = {name: list(value.shape) for name, value in vars(self).items()}
        if any(shape != [self.height.numel()] for shape in shapes.values()):
            raise ValueError(f"all fields must be [B] with one B, got {shapes}")


def draw_crops(
    num_clips: int,
    *,
    height: int,
    width: int,
    config: RandomCropConfig,
    generator: torch.Generator,
) -> ClipCrops:
    """Draw a scale and a position for each of `num_clips` clips of `height` times `width` pixels.

    The longer side keeps its ratio to the shorter one, rounded down to whole pixels.

    Args:
        num_clips: B.
        height: of the frames, pixels.
        width: of the frames, pixels.
        config: the ranges.
        generator: a CPU generator.
    """
    uniform = torch.rand(3, num_clips, generator=generator, dtype=torch.float64)
    short = config.short_side_low + _whole_number_below(
        uniform[0], config.short_side_high - config.short_side_low + 1
    )
    new_height = short if height <= width else short * height // width
    new_width = short if width <= height else short * width // height
    return ClipCrops(
        height=new_height,
        width=new_width,
        top=_whole_number_below(uniform[1], new_height - config.size + 1),
        left=_whole_number_below(uniform[2], new_width - config.size + 1),
    )


def apply_crops(frames: Tensor, crops: ClipCrops, *, size: int) -> Tensor:
    """Resize each clip bilinearly (between pixel centres) and cut its square, all frames alike.

    Args:
        frames: [B, L, H, W, 3], uint8 or float.
        crops: one a clip.
        size: side of the square, pixels.

    Returns:
        [B, L, size, size, 3] float32.

    Raises:
        ValueError: there is not one crop a clip.
    """
    num_clips = crops.height.numel()
    if frames.ndim != 5 or frames.shape[0] != num_clips:
        raise ValueError(f"frames must be [{num_clips}, L, H, W, 3], got {list(frames.shape)}")
    cropped = torch.empty(
        (*frames.shape[:2], size, size, 3), dtype=torch.float32, device=frames.device
    )
    fields = (crops.height, crops.width, crops.top, crops.left)
    # Every clip has another scale, so clips are resized one by one, each with all its frames.
    for clip, out, *numbers in zip(frames, cropped, *(f.tolist() for f in fields), strict=True):
        height, width, top, left = numbers
        resized = _resize(clip, height=height, width=width)
        out.copy_(resized[:, top : top + size, left : left + size])
    return cropped


def resize_short_side(frames: Tensor, short_side: int) -> Tensor:
    """Resize frames [..., H, W, 3] bilinearly to a shorter side of `short_side`: float32.

    The longer side keeps its ratio to the shorter one, rounded down to whole pixels.

    Raises:
        ValueError: short_side is below 1.
    """
    if short_side < 1:
        raise ValueError(f"short_side must be at least 1, got {short_side}")
    height, width = frames.shape[-3:-1]
    shorter = min(height, width)
    flat = frames.reshape(-1, height, width, 3)
    new_height, new_width = (length * short_side // shorter for length in (height, width))
    resized = _resize(flat, height=new_height, width=new_width)
    return resized.reshape(*frames.shape[:-3], new_height, new_width, 3)


def spread_crops(frames: Tensor, *, size: int, num_crops: int) -> Tensor:
    """Cut squares at even distances along the longer side, in the middle of the shorter one.

    One crop is the centre; three are left (or top), centre and right (or bottom).

    Args:
        frames: [B, L, H, W, 3].
        size: side of a square, pixels.
        num_crops: squares a clip.

    Returns:
        [B, num_crops, L, size, size, 3] of the same type.

    Raises:
        ValueError: the square does not fit in, or num_crops is below 1.
    """
    if frames.ndim != 5 or not 1 <= size <= min(frames.shape[2:4]) or num_crops < 1:
        raise ValueError(
            "frames must be [B, L, H, W, 3] with sides of at least size, num_crops at least 1, "
            f"got {list(frames.shape)}, {size} and {num_crops}"
        )
    height, width = frames.shape[2:4]
    crops = []
    for crop in range(num_crops):
        # Share of the way along the longer side; half of it where a side has only one place.
        step, steps = (crop, num_crops - 1) if num_crops > 1 else (1, 2)
        top, left = (-(-room // 2) for room in (height - size, width - size))
        if height > width:
            top = -(-step * (height - size) // steps)
        else:
            left = -(-step * (width - size) // steps)
        crops.append(frames[:, :, top : top + size, left : left + size])
    return torch.stack(crops, dim=1)


def _resize(clip: Tensor, *, height: int, width: int) -> Tensor:
    """Frames [L, H, W, 3] -> [L, height, width, 3] float32."""
    images = clip.movedim(-1, 1).float()
    if images.shape[-2:] == (height, width):
        return images.movedim(1, -1)
    resized = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    return resized.movedim(1, -1)


def _whole_number_below(uniform: Tensor, limit: int | Tensor) -> Tensor:
    """Numbers in 0..1 (1 excluded) -> whole numbers in 0 .. limit - 1, each as likely."""
    return (uniform * limit).long()
