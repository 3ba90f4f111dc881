"""What a boundary-matching network says about a video, and what it should have said.

Window convention, held everywhere: D bins split the extent (a span of time) evenly, and cell
(d, t) is the window of bins t .. t + d inclusive, of length d + 1. It covers [t, t + d + 1] / D
of the extent and exists where t + d < D. So bin t as a start stands for the instant t / D, and
bin e as an end for (e + 1) / D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class BoundaryMaps:
    """Probabilities of a batch of videos; maps are indexed [b, d, t], 0 where no window exists."""

    start: Tensor
    """[B, D]: an action starts with this bin."""
    end: Tensor
    """[B, D]: an action ends with this bin."""
    classification: Tensor
    """[B, D, D]: the window is an action (trained as IoU > 0.9)."""
    regression: Tensor
    """[B, D, D]: IoU of the window with the action nearest to it."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        for name in ("classification", "regression"):
            _check_shapes(self.start, self.end, getattr(self, name), name)

    @property
    def num_bins(self) -> int:
        """D."""
        return self.start.shape[1]

    def select(self, videos: Tensor) -> BoundaryMaps:
        """The maps of some videos, given by their indices [n] in the batch."""
        return BoundaryMaps(
            start=self.start[videos],
            end=self.end[videos],
            classification=self.classification[videos],
            regression=self.regression[videos],
        )


@dataclass(frozen=True)
class BmnTargets:
    """What the maps of a batch should be."""

    start: Tensor
    """[B, D]: share of the bin's surroundings that lies near a start, 0..1."""
    end: Tensor
    """[B, D]: the same for ends."""
    iou: Tensor
    """[B, D, D]: best IoU of the window with an action, 0 where no window exists."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        _check_shapes(self.start, self.end, self.iou, "iou")

    def select(self, videos: Tensor) -> BmnTargets:
        """The targets of some videos, given by their indices [n] in the batch."""
        return BmnTargets(self.start[videos], self.end[videos], self.iou[videos])

    def to(self, device: torch.device | str) -> BmnTargets:
        """The same on another device."""
        return BmnTargets(self.start.to(device), self.end.to(device), self.iou.to(device))


def valid_cells(num_bins: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Which cells (d, t) are windows, t + d < D: bool [D, D]."""
    bins = torch.arange(num_bins, device=device)
    return bins.unsqueeze(0) + bins.unsqueeze(1) < num_bins


def valid_cell_index(num_bins: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Positions d * D + t of the windows in a flattened map: int64 [D(D+1)/2], by d, then t."""
    return torch.from_numpy(_valid_cell_index(num_bins)).to(device)


def valid_windows(num_bins: int) -> Tensor:
    """What the packed windows cover, in shares of the extent: fp64 [D(D+1)/2, 2]."""
    index = valid_cell_index(num_bins)
    first = index % num_bins
    duration = index.div(num_bins, rounding_mode="floor")
    return torch.stack([first, first + duration + 1], dim=1).double() / num_bins


def pack_valid_cells(cell_map: Tensor) -> Tensor:
    """Keep the windows of a map: [..., D, D] -> [..., D(D+1)/2], by duration, then start.

    Raises:
        ValueError: the map is not square.
    """
    num_bins = cell_map.shape[-1]
    if cell_map.dim() < 2 or cell_map.shape[-2] != num_bins:
        raise ValueError(f"a map must be [..., D, D], got shape {tuple(cell_map.shape)}")
    index = valid_cell_index(num_bins, device=cell_map.device)
    return cell_map.flatten(-2).index_select(-1, index)


def unpack_valid_cells(packed: Tensor) -> Tensor:
    """Undo `pack_valid_cells`: [..., D(D+1)/2] -> [..., D, D], 0 where no window exists.

    Raises:
        ValueError: the number of cells is not D(D+1)/2 for any D.
    """
    num_cells = packed.shape[-1]
    num_bins = (math.isqrt(8 * num_cells + 1) - 1) // 2
    if num_cells == 0 or num_bins * (num_bins + 1) // 2 != num_cells:
        raise ValueError(
            f"a packed map holds D(D+1)/2 cells (1, 3, 6, 10, ...), got {num_cells} of them"
        )
    index = valid_cell_index(num_bins, device=packed.device)
    flat = packed.new_zeros((*packed.shape[:-1], num_bins * num_bins))
    return flat.index_copy(-1, index, packed).reshape(*packed.shape[:-1], num_bins, num_bins)


# An array, as a tensor made under inference mode, a fake mode or another device would stay one.
@lru_cache(maxsize=32)
def _valid_cell_index(num_bins: int) -> NDArray[np.int64]:
    bins = np.arange(num_bins)
    return np.flatnonzero(bins + bins[:, None] < num_bins)


def _check_shapes(start: Tensor, end: Tensor, cells: Tensor, name: str) -> None:
    if start.dim() != 2 or end.shape != start.shape:
        raise ValueError(
            "start and end must both be [B, D], "
            f"got shapes {tuple(start.shape)} and {tuple(end.shape)}"
        )
    expected = (*start.shape, start.shape[1])
    if cells.shape != expected:
        raise ValueError(f"{name} must be [B, D, D] = {expected}, got shape {tuple(cells.shape)}")
