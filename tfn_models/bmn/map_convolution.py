"""3x3 convolutions over a boundary map, only where windows need them.

Half of a D x D map holds no window. Rows are convolved in strips as wide as their longest row, on
maps laid out as [B, D + 2, D + 2, C] with a border of zeros, so that a strip and its neighbours are
one view. Values at the windows, and all gradients, are those of the full convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.boundary_maps import valid_cell_index

STRIP_ROWS = {"cpu": 16, "cuda": 64}
"""Rows a strip. On a CPU fewer rows waste less beyond the longest row (of 8 to 25 all are within
3 %); a GPU has more to lose by small pieces of work."""


@dataclass(frozen=True)
class Strip:
    """Rows first .. last - 1 of a map, and their first `width` columns."""

    first: int
    last: int
    width: int

    def of(self, padded: Tensor, *, margin: int) -> Tensor:
        """View [B, C, rows, width] of a padded map [B, D+2, D+2, C], `margin` (0, 1) wider."""
        rows = slice(self.first + 1 - margin, self.last + 1 + margin)
        columns = slice(1 - margin, self.width + 1 + margin)
        return padded[:, rows, columns].permute(0, 3, 1, 2)


def strips(num_bins: int, *, reach: int, rows: int) -> Iterator[Strip]:
    """Cover the cells (d, t) of a D x D map with t + d < D + reach."""
    for first in range(0, num_bins, rows):
        last = min(first + rows, num_bins)
        yield Strip(first, last, min(num_bins, num_bins - first + reach))


class _ConvolveStrips(torch.autograd.Function):
    """Convolution and ReLU of a padded map: at the cells within reach, or of the windows alone."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, padded: Tensor, weight: Tensor, bias: Tensor, reach: int, windows: Tensor | None
    ) -> Tensor:
        result = padded.new_zeros((*padded.shape[:3], len(weight)))
        for strip in _strips_of(padded, reach):
            convolved = F.conv2d(strip.of(padded, margin=1), weight, bias)
            strip.of(result, margin=0).copy_(convolved.relu_())
        if windows is not None:
            result = result.flatten(1, 2).index_select(1, windows)
        ctx.save_for_backward(padded, weight, result, windows)
        ctx.reach = reach
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        padded, weight, result, windows = ctx.saved_tensors
        # The gradient of the input is a convolution too, with the kernels turned round.
        turned = weight.transpose(0, 1).flip(2, 3).contiguous()
        input_gradient = torch.zeros_like(padded)
        # Summed over the strips in fp32 at least.
        precision = torch.promote_types(weight.dtype, torch.float32)
        weight_gradient = torch.zeros_like(weight, dtype=precision)
        bias_gradient = weight.new_zeros(len(weight), dtype=precision)
        for strip in _strips_of(padded, ctx.reach + 2):
            if windows is None:
                around = strip.of(gradient, margin=1) * (strip.of(result, margin=1) > 0)
            else:
                around = _strip_of_windows(gradient, result, windows, strip)
            strip.of(input_gradient, margin=0).copy_(F.conv2d(around, turned))
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                around[..., 1:-1, 1:-1],
                strip.of(padded, margin=1),
                weight,
                [len(weight)],
                [1, 1],
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                1,
                [False, True, True],
            )
            weight_gradient += of_weight
            bias_gradient += of_bias
        of_parameters = weight_gradient.to(weight.dtype), bias_gradient.to(weight.dtype)
        return input_gradient, *of_parameters, None, None


def _strip_of_windows(gradient: Tensor, result: Tensor, windows: Tensor, strip: Strip) -> Tensor:
    """The gradient before the ReLU of a strip and its neighbours: [B, C, rows + 2, width + 2].

    `gradient` and `result` are packed, [B, P, C]; the windows of some rows lie together in them.
    """
    num_bins = (math.isqrt(8 * len(windows) + 1) - 1) // 2
    first_row, end_row = max(strip.first - 1, 0), min(strip.last + 1, num_bins)
    packed = slice(_windows_before(first_row, num_bins), _windows_before(end_row, num_bins))
    masked = gradient[:, packed] * (result[:, packed] > 0)
    rows, side = strip.last - strip.first + 2, num_bins + 2
    cells = masked.new_zeros((len(masked), rows * side, masked.shape[2]))
    cells.index_copy_(1, windows[packed] - strip.first * side, masked)
    view = cells.view(len(masked), rows, side, -1)[:, :, : strip.width + 2]
    return view.permute(0, 3, 1, 2)


def _windows_before(row: int, num_bins: int) -> int:
    """How many windows the rows above `row` hold."""
    return row * num_bins - row * (row - 1) // 2


def _strips_of(padded: Tensor, reach: int) -> Iterator[Strip]:
    rows = STRIP_ROWS.get(padded.device.type, STRIP_ROWS["cuda"])
    return strips(padded.shape[1] - 2, reach=reach, rows=rows)


class MapConvolutions(nn.Module):
    """Two 3x3 convolutions, each with a ReLU, over the map of the windows of a video."""

    def __init__(self, channels: int, *, num_bins: int) -> None:
        """Draw the parameters as Conv2d does; maps have `num_bins` = D rows and columns."""
        super().__init__()
        self.num_bins = num_bins
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        # The second one reads two diagonals beyond the windows, so the first one reads four.
        outside = outside_positions(num_bins, reach=4)
        self.register_buffer("_windows", window_positions(num_bins), persistent=False)
        self.register_buffer("_outside", outside, persistent=False)

    def forward(self, windows: Tensor, outside: Tensor) -> Tensor:
        """[B, D(D+1)/2, C] before its ReLU -> [B, D(D+1)/2, C], by duration, then start.

        `outside` [C] is what a cell holds, before its ReLU, that is no window.
        """
        positions = self.get_buffer("_windows")
        padded = self._padded_map(windows, outside).relu_()
        padded = convolve_map(padded, self.first, reach=2)
        return convolve_map(padded, self.second, reach=0, windows=positions)

    def _padded_map(self, windows: Tensor, outside: Tensor) -> Tensor:
        batch, _, channels = windows.shape
        side = self.num_bins + 2
        inside, around = self.get_buffer("_windows"), self.get_buffer("_outside")
        constant = outside.to(windows.dtype).expand(batch, len(around), channels)
        padded = windows.new_zeros((batch, side * side, channels))
        padded.index_copy_(1, torch.cat([inside, around]), torch.cat([windows, constant], dim=1))
        return padded.view(batch, side, side, channels)


def convolve_map(
    padded: Tensor, convolution: nn.Conv2d, *, reach: int, windows: Tensor | None = None
) -> Tensor:
    """relu(convolution(map)) at the cells (d, t) with t + d < D + reach.

    Args:
        padded: [B, D+2, D+2, C] with a border of zeros, right at all cells within reach + 2.
        convolution: 3x3, stride 1.
        reach: 0 for the windows alone; what reads the result with a 3x3 kernel needs 2 more.
        windows: to get the windows alone, where `window_positions` says they are.

    Returns:
        [B, D+2, D+2, O] with a border of zeros, or [B, D(D+1)/2, O] of the windows. Cells out of
        reach hold no result: whatever reads them must not let them count, and gives them no
        gradient.

    Raises:
        ValueError: shapes do not fit, or the kernel is not 3x3.
    """
    if convolution.kernel_size != (3, 3) or convolution.stride != (1, 1):
        raise ValueError(f"the convolution must be 3x3 with stride 1, got {convolution}")
    if padded.dim() != 4 or padded.shape[1] != padded.shape[2]:
        raise ValueError(f"a padded map must be [B, D+2, D+2, C], got {list(padded.shape)}")
    device = padded.device.type
    # As autocast does for a convolution: what is fp64 stays so.
    lowers = torch.is_autocast_enabled(device) and padded.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if lowers else padded.dtype
    assert convolution.bias is not None
    weight, bias = convolution.weight.to(dtype), convolution.bias.to(dtype)
    with torch.autocast(device, enabled=False):
        result: Tensor = _ConvolveStrips.apply(padded.to(dtype), weight, bias, reach, windows)
    return result


def window_positions(num_bins: int) -> Tensor:
    """Where a flattened padded map holds the windows: int64 [D(D+1)/2], by duration, then start."""
    cells = valid_cell_index(num_bins)
    row = cells.div(num_bins, rounding_mode="floor")
    return (row + 1) * (num_bins + 2) + cells % num_bins + 1


def outside_positions(num_bins: int, *, reach: int) -> Tensor:
    """Where it holds the cells with D <= t + d < D + reach, which are no windows: int64 [n]."""
    bins = np.arange(num_bins)
    diagonal = bins + bins[:, None]
    row, column = np.nonzero((diagonal >= num_bins) & (diagonal < num_bins + reach))
    return torch.from_numpy((row + 1) * (num_bins + 2) + column + 1)
