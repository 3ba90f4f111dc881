"""Linear resizing of feature sequences and of boundary maps along time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def cell_centres(length: int, new_length: int) -> Tensor:
    """Where the centres of `new_length` cells lie on a sequence of `length` cells.

    Both sequences cover the same span, so a centre (i + 1/2) / new_length is met at
    (i + 1/2) * length / new_length - 1/2. Returns fp64 positions [new_length] in cells.

    Raises:
        ValueError: a length is below 1.
    """
    if length < 1 or new_length < 1:
        raise ValueError(f"lengths must be at least 1, got {length} and {new_length}")
    cells = torch.arange(new_length, dtype=torch.float64)
    return (cells + 0.5) * (length / new_length) - 0.5


def resize_sequence(x: Tensor, length: int) -> Tensor:
    """Resize features [T, F] or [B, T, F] to `length` cells by linear interpolation in fp32.

    Positions are cell centres (align_corners=False), held at the outermost cells. An fp64 input
    stays fp64; every other type comes back as fp32. The same length comes back unchanged.

    Raises:
        ValueError: x has another shape, or a length is below 1.
    """
    if x.dim() not in (2, 3):
        raise ValueError(f"x must be [T, F] or [B, T, F], got shape {tuple(x.shape)}")
    values = x if x.dtype == torch.float64 else x.float()
    num_cells = x.shape[-2]
    positions = cell_centres(num_cells, length).clamp(0, num_cells - 1)
    low = positions.floor()
    fraction = (positions - low).to(device=x.device, dtype=values.dtype).unsqueeze(-1)
    low_cell = low.long().to(x.device)
    high_cell = (low_cell + 1).clamp(max=num_cells - 1)
    below = values.index_select(-2, low_cell)
    above = values.index_select(-2, high_cell)
    return below * (1 - fraction) + above * fraction


def interpolation_matrix(positions: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """The matrix [P, length] whose product with a sequence reads it at P positions.

    `positions` [P] count cells, 0 at the first one; those outside are held at the outermost cell.
    """
    held = positions.clip(0, length - 1)
    return (1 - np.abs(held[:, None] - np.arange(length))).clip(0)
