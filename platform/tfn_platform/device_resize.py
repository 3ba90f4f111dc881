"""Resize decoded frames on the device that holds them."""

import torch
from torch import Tensor


class DeviceResize:
    """Frames to images of one size, the first frames': its short side as given."""

    def __init__(self, short_side: int, *, square: bool = False) -> None:
        """With `square` the images are cut to their central square."""
        if short_side < 1:
            raise ValueError(f"short_side must be at least 1 pixel, got {short_side}")
        self._short_side = short_side
        self._square = square
        self._size: tuple[int, int] | None = None
        self._weights: dict[tuple[int, int], Tensor] = {}

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames [n, 3, H, W] uint8 -> images [n, h, w, 3] uint8.

        Averages areas when it shrinks, interpolates when it enlarges.
        """
        height, width = frames.shape[2:]
        short = min(height, width)
        if self._size is None:
            self._size = (
                (2 * height * self._short_side + short) // (2 * short),
                (2 * width * self._short_side + short) // (2 * short),
            )
        rows = self._matrix(height, self._size[0], frames.device)
        columns = self._matrix(width, self._size[1], frames.device)
        images = rows @ (frames.float() @ columns.T)
        if self._square:
            side = min(self._size)
            top, left = (self._size[0] - side) // 2, (self._size[1] - side) // 2
            images = images[:, :, top : top + side, left : left + side]
        return images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _matrix(self, num_in: int, num_out: int, device: torch.device) -> Tensor:
        key = (num_in, num_out)
        if key not in self._weights:
            make = area_weights if num_out < num_in else linear_weights
            self._weights[key] = make(num_in, num_out).to(device)
        return self._weights[key]


def area_weights(num_in: int, num_out: int) -> Tensor:
    """[num_out, num_in] float32: the share of each input pixel in the area of each output pixel."""
    scale = num_in / num_out
    low = torch.arange(num_out, dtype=torch.float64)[:, None] * scale
    pixel = torch.arange(num_in, dtype=torch.float64)
    covered = torch.minimum(low + scale, pixel + 1) - torch.maximum(low, pixel)
    return (covered.clamp(min=0) / scale).float()


def linear_weights(num_in: int, num_out: int) -> Tensor:
    """[num_out, num_in] float32: linear interpolation between pixels' centres, clamped at ends."""
    scale = num_in / num_out
    center = ((torch.arange(num_out, dtype=torch.float64) + 0.5) * scale - 0.5)[:, None]
    distance = (center.clamp(0, num_in - 1) - torch.arange(num_in, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0).float()
