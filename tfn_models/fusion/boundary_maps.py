"""Fusion of BMNs (TFN section 2.2): one weight a member for each of the four maps.

Maps hold probabilities. Weights of a simplex keep them so; a sum by free weights may leave 0..1,
which decoding cannot read (it takes powers) and the criteria cannot (they take logarithms), so
sums are cut off at 0 and 1, in fitting as in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, pack_valid_cells, valid_cells
from tfn_models.criteria import ACTION_IOU, BOUNDARY_THRESHOLD, balanced_logistic, iou_classes
from tfn_models.fusion.weights import (
    MemberWeights,
    Parametrisation,
    fit_weights,
    uniform_weights,
    weighted_sum,
)
from tfn_models.layers.resize import interpolation_matrix


@dataclass(frozen=True)
class MapWeights:
    """One weight a member, fp64 [M] each."""

    start: Tensor
    end: Tensor
    classification: Tensor
    regression: Tensor

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        four = (self.start, self.end, self.classification, self.regression)
        shapes = [tuple(weights.shape) for weights in four]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"the four weights must all be [M], got shapes {shapes}")


def uniform_map_weights(num_members: int) -> MapWeights:
    """The weights of the plain mean of all four maps.

    Raises:
        ValueError: there is no member.
    """
    weights = uniform_weights(num_members)
    return MapWeights(weights, weights, weights, weights)


def resize_boundary_maps(maps: BoundaryMaps, num_bins: int) -> BoundaryMaps:
    """Read maps on a grid of `num_bins` bins, by linear interpolation.

    A value keeps what it stands for: the instant t / D of a start, (e + 1) / D of an end, the
    window [t, t + d + 1] / D of a cell. So on a grid half as fine every value is one of the old
    ones. Cells that are no windows are left out of the interpolation, not read as zeros.

    Args:
        maps: of B videos on D bins; on `num_bins` bins they come back as they are.
        num_bins: of the new grid.

    Raises:
        ValueError: num_bins is below 1.
    """
    if maps.num_bins == num_bins:
        return maps
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    arrays = _resize_matrices(maps.num_bins, num_bins)
    starts, ends, share_of_windows = (torch.from_numpy(array).to(maps.start) for array in arrays)
    valid = valid_cells(maps.num_bins, device=maps.start.device).to(maps.start.dtype)
    is_window = valid_cells(num_bins, device=maps.start.device)

    def resize_cells(cells: Tensor) -> Tensor:
        return (ends @ (cells * valid) @ starts.T / share_of_windows).where(is_window, 0)

    return BoundaryMaps(
        start=maps.start @ starts.T,
        end=maps.end @ ends.T,
        classification=resize_cells(maps.classification),
        regression=resize_cells(maps.regression),
    )


# Arrays, as a tensor made under inference mode, a fake mode or another device would stay one.
@lru_cache(maxsize=64)
def _resize_matrices(
    old_bins: int, new_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How starts and ends are read, [D new, D old], and how much of a cell are windows, [D, D]."""
    bins = np.arange(new_bins, dtype=np.float64)
    ratio = old_bins / new_bins
    starts = interpolation_matrix(bins * ratio, old_bins)
    ends = interpolation_matrix((bins + 1) * ratio - 1, old_bins)
    old, new = np.arange(old_bins), np.arange(new_bins)
    # Durations d + 1 scale as ends e + 1 do.
    share = ends @ (old + old[:, None] < old_bins) @ starts.T
    return starts, ends, np.where(new + new[:, None] < new_bins, share, 1.0)


class MapFusion(nn.Module):
    """The members' maps on one grid, summed by learned weights; a new one gives their mean."""

    def __init__(
        self, num_members: int, *, num_bins: int, parametrisation: Parametrisation = "simplex"
    ) -> None:
        """Start from uniform weights.

        Args:
            num_members: M.
            num_bins: D of the grid that all maps are resized to.
            parametrisation: of the weights; sums by free ones are cut off at 0 and 1.
        """
        super().__init__()
        self.num_bins = num_bins
        self.start = MemberWeights(num_members, parametrisation=parametrisation)
        self.end = MemberWeights(num_members, parametrisation=parametrisation)
        self.classification = MemberWeights(num_members, parametrisation=parametrisation)
        self.regression = MemberWeights(num_members, parametrisation=parametrisation)

    @property
    def weights(self) -> MapWeights:
        """The weights of the four maps."""
        return MapWeights(self.start(), self.end(), self.classification(), self.regression())

    def forward(self, members: Sequence[BoundaryMaps]) -> BoundaryMaps:
        """Maps of the same B videos by M members, each on a grid of its own -> fused maps."""
        return fuse_boundary_maps(members, self.weights, num_bins=self.num_bins)


def fuse_boundary_maps(
    members: Sequence[BoundaryMaps], weights: MapWeights, *, num_bins: int
) -> BoundaryMaps:
    """Resize each member's maps of the same B videos to one grid and sum them by weight.

    Args:
        members: the maps of M members, each on its own number of bins.
        weights: one a member and map; sums are cut off at 0 and 1.
        num_bins: of the fused maps.

    Raises:
        ValueError: there is no member, not one weight a member, or the numbers of videos differ.
    """
    _check_members(members)
    resized = [resize_boundary_maps(maps, num_bins) for maps in members]

    def fuse(values: list[Tensor], weights: Tensor) -> Tensor:
        return _sum_within_0_1(torch.stack(values), weights)

    return BoundaryMaps(
        start=fuse([maps.start for maps in resized], weights.start),
        end=fuse([maps.end for maps in resized], weights.end),
        classification=fuse([maps.classification for maps in resized], weights.classification),
        regression=fuse([maps.regression for maps in resized], weights.regression),
    )


def _sum_within_0_1(values: Tensor, weights: Tensor) -> Tensor:
    return weighted_sum(values, weights).clamp(0, 1)


def fit_map_fusion(
    members: Sequence[BoundaryMaps],
    targets: BmnTargets,
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 50,
    max_videos: int = 100,
    seed: int = 0,
) -> MapFusion:
    """Train a `MapFusion` to minimise the BMN's own criteria on the fused maps.

    Starts, ends and classification: the balanced logistic loss. Regression: the mean squared
    error in which the three classes of IoU count the same, what the loss samples at random.

    Args:
        members: maps of M members on the same B held-out videos; each has its own D.
        targets: of these videos, on the grid that the maps will be fused on.
        parametrisation: of the weights, see `MapFusion`.
        penalty: pull towards uniform weights, see `fit_weights`.
        max_steps: of L-BFGS.
        max_videos: of more videos, this many are drawn without replacement.
        seed: of that draw.

    Raises:
        ValueError: there is no member or no video, or members and targets have other videos.
    """
    videos = _drawn_videos(members, targets, max_videos=max_videos, seed=seed)
    targets, num_bins = targets.select(videos), targets.start.shape[1]
    resized = [resize_boundary_maps(maps.select(videos), num_bins) for maps in members]
    iou = pack_valid_cells(targets.iou).cpu()
    # A simplex needs no cut; a sum that rounding brings just above 1 would lose its gradient by it.
    fuse = weighted_sum if parametrisation == "simplex" else _sum_within_0_1

    def fit(
        weights: MemberWeights, values: list[Tensor], criterion: Callable[[Tensor], Tensor]
    ) -> None:
        exact = torch.stack([value.detach().cpu().double() for value in values])
        fit_weights(
            weights,
            lambda current: criterion(fuse(exact, current)),
            penalty=penalty,
            max_steps=max_steps,
        )

    is_start, is_end = (c.cpu() > BOUNDARY_THRESHOLD for c in (targets.start, targets.end))
    fusion = MapFusion(len(members), num_bins=num_bins, parametrisation=parametrisation)
    fit(fusion.start, [m.start for m in resized], lambda p: balanced_logistic(p, is_start))
    fit(fusion.end, [m.end for m in resized], lambda p: balanced_logistic(p, is_end))
    fit(
        fusion.classification,
        [pack_valid_cells(m.classification) for m in resized],
        lambda p: balanced_logistic(p, iou > ACTION_IOU),
    )
    fit(
        fusion.regression,
        [pack_valid_cells(m.regression) for m in resized],
        lambda p: _balanced_squared_error(p, iou),
    )
    return fusion


def fit_map_weights(
    members: Sequence[BoundaryMaps],
    targets: BmnTargets,
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 50,
    max_videos: int = 100,
    seed: int = 0,
) -> MapWeights:
    """The weights of `fit_map_fusion`, whose arguments and errors these are."""
    fusion = fit_map_fusion(
        members,
        targets,
        parametrisation=parametrisation,
        penalty=penalty,
        max_steps=max_steps,
        max_videos=max_videos,
        seed=seed,
    )
    with torch.no_grad():
        return fusion.weights


def _drawn_videos(
    members: Sequence[BoundaryMaps], targets: BmnTargets, *, max_videos: int, seed: int
) -> Tensor:
    """Indices, rising, of the videos to fit on, once members and targets fit together."""
    _check_members(members)
    num_videos = len(targets.start)
    if len(members[0].start) != num_videos or num_videos == 0:
        raise ValueError(
            f"targets and members must have the same videos, at least one, got {num_videos} "
            f"and {len(members[0].start)}"
        )
    if num_videos <= max_videos:
        return torch.arange(num_videos)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(num_videos, generator=generator)[:max_videos].sort().values


def _balanced_squared_error(predicted: Tensor, iou: Tensor) -> Tensor:
    squared_error = (predicted - iou).square()
    means = [
        (squared_error * members).sum() / members.sum().clamp(min=1) for members in iou_classes(iou)
    ]
    return torch.stack(means).mean()


def _check_members(members: Sequence[BoundaryMaps]) -> None:
    if not members:
        raise ValueError("members must hold at least one member's maps, got none")
    num_videos = {len(maps.start) for maps in members}
    if len(num_videos) != 1:
        raise ValueError(
            f"all members must have maps of the same videos, got numbers {sorted(num_videos)}"
        )
