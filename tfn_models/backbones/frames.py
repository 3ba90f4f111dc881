"""From decoded frames to the clips that a backbone reads."""

from collections.abc import Sequence

import torch
from torch import Tensor

FRAME_MEAN = (0.45, 0.45, 0.45)
"""Mean of the red, green and blue channel, in units of full scale: what SlowFast's published
weights were trained with."""
FRAME_STD = (0.225, 0.225, 0.225)
"""Standard deviation of the channels, in units of full scale, likewise."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of the channels of ImageNet, which mmaction2 and part of torchvision trained with."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the channels, likewise."""


def normalize_frames(
    frames: Tensor,
    *,
    mean: Sequence[float] = FRAME_MEAN,
    std: Sequence[float] = FRAME_STD,
) -> Tensor:
    """Turn frames into a clip: (frame / 255 - mean) / std, channels before time.

    Args:
        frames: [..., L, H, W, 3], uint8, or float on the same scale of 0 to 255.
        mean: one number a channel, in units of full scale.
        std: one number a channel, in units of full scale.

    Returns:
        [..., 3, L, H, W] float32: a view whose channels stay innermost in memory, which is the
        layout torch calls channels_last_3d.

    Raises:
        ValueError: frames are of another shape or type, or mean and std are not three numbers.
    """
    if frames.ndim < 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be [..., L, H, W, 3], got {list(frames.shape)}")
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        raise ValueError(f"frames must be uint8 or floating point, got {frames.dtype}")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean and std must be three numbers, std positive, got {mean}, {std}")
    offset = torch.tensor(mean, device=frames.device)
    scale = torch.tensor(std, device=frames.device)
    clips = (frames.float() / 255).sub_(offset).div_(scale)
    return clips.movedim(-1, -4)
