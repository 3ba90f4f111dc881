"""Fusion of BMNs (TFN section 2.2): one weight a member for each of the four maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, pack_valid_cells, valid_cells
from tfn_models.criteria import ACTION_IOU, BOUNDARY_THRESHOLD, balanced_logistic, iou_classes
from tfn_models.fusion.weights import fit_weights, uniform_weights, weighted_sum
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
        shapes = [tuple(w.shape) for w in (self.start, self.end, *self._cells())]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"the four weights must all be [M], got shapes {shapes}")

    def _cells(self) -> tuple[Tensor, Tensor]:
        return self.classification, self.regression


def uniform_map_weights(num_members: int) -> MapWeights:
    """The weights of the plain mean of all four maps."""
    weights = uniform_weights(num_members)
    return MapWeights(weights, weights, weights, weights)


def resize_boundary_maps(maps: BoundaryMaps, num_bins: int) -> BoundaryMaps:
    """Read maps on a grid of `num_bins` bins, by linear interpolation.

    A value keeps what it stands for: the instant t / D of a start, (e + 1) / D of an end, the
    window [t, t + d + 1] / D of a cell. So on a grid half as fine every value is one of the old
    ones. Cells that are no windows are left out of the interpolation, not read as zeros.
    """
    if maps.num_bins == num_bins:
        return maps
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    starts, ends = _resize_matrices(maps.num_bins, num_bins)
    starts, ends = starts.to(maps.start), ends.to(maps.start)
    valid = valid_cells(maps.num_bins, device=maps.start.device).to(maps.start.dtype)
    is_window = valid_cells(num_bins, device=maps.start.device)
    # Durations d + 1 scale as ends e + 1 do.
    share_of_windows = (ends @ valid @ starts.T).where(is_window, 1)

    def resize_cells(cells: Tensor) -> Tensor:
        return (ends @ (cells * valid) @ starts.T / share_of_windows).where(is_window, 0)

    return BoundaryMaps(
        start=maps.start @ starts.T,
        end=maps.end @ ends.T,
        classification=resize_cells(maps.classification),
        regression=resize_cells(maps.regression),
    )


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _resize_matrices(old_bins: int, new_bins: int) -> tuple[Tensor, Tensor]:
    bins = torch.arange(new_bins, dtype=torch.float64)
    ratio = old_bins / new_bins
    return (
        interpolation_matrix(bins * ratio, old_bins),
        interpolation_matrix((bins + 1) * ratio - 1, old_bins),
    )


def fuse_boundary_maps(
    members: Sequence[BoundaryMaps], weights: MapWeights, *, num_bins: int
) -> BoundaryMaps:
    """Resize each member's maps of the same B videos to one grid and sum them by weight."""
    _check_members(members)
    resized = [resize_boundary_maps(maps, num_bins) for maps in members]
    return BoundaryMaps(
        start=weighted_sum(torch.stack([m.start for m in resized]), weights.start),
        end=weighted_sum(torch.stack([m.end for m in resized]), weights.end),
        classification=weighted_sum(
            torch.stack([m.classification for m in resized]), weights.classification
        ),
        regression=weighted_sum(torch.stack([m.regression for m in resized]), weights.regression),
    )


def fit_map_weights(
    members: Sequence[BoundaryMaps],
    targets: BmnTargets,
    *,
    penalty: float = 1e-2,
    max_steps: int = 50,
    max_videos: int = 100,
    seed: int = 0,
) -> MapWeights:
    """Weights (on the simplex) that minimise the BMN's own criteria on the fused maps.

    Starts, ends and classification: the balanced logistic loss. Regression: the mean squared
    error in which the three classes of IoU count the same, what the loss samples at random.

    Args:
        members: maps of M members on the same B held-out videos; each has its own D.
        targets: of these videos, on the grid that the maps will be fused on.
        penalty: pull towards uniform weights, see `fit_weights`.
        max_steps: of L-BFGS.
        max_videos: of more videos, this many are drawn without replacement.
        seed: of that draw.
    """
    num_videos, num_bins = targets.start.shape
    _check_members(members)
    if len(members[0].start) != num_videos or num_videos == 0:
        raise ValueError(
            f"targets and members must have the same videos, at least one, got {num_videos} "
            f"and {len(members[0].start)}"
        )
    if num_videos > max_videos:
        generator = torch.Generator().manual_seed(seed)
        videos = torch.randperm(num_videos, generator=generator)[:max_videos].sort().values
        members, targets = [maps.select(videos) for maps in members], targets.select(videos)
    resized = [resize_boundary_maps(maps, num_bins) for maps in members]
    iou = pack_valid_cells(targets.iou).cpu()

    def fit(values: list[Tensor], criterion: Callable[[Tensor], Tensor]) -> Tensor:
        stack = torch.stack([v.detach().cpu().double() for v in values])
        return fit_weights(
            lambda weights: criterion(weighted_sum(stack, weights)),
            len(stack),
            penalty=penalty,
            max_steps=max_steps,
        )

    is_start = targets.start.cpu() > BOUNDARY_THRESHOLD
    is_end = targets.end.cpu() > BOUNDARY_THRESHOLD
    return MapWeights(
        start=fit([m.start for m in resized], lambda fused: balanced_logistic(fused, is_start)),
        end=fit([m.end for m in resized], lambda fused: balanced_logistic(fused, is_end)),
        classification=fit(
            [pack_valid_cells(m.classification) for m in resized],
            lambda fused: balanced_logistic(fused, iou > ACTION_IOU),
        ),
        regression=fit(
            [pack_valid_cells(m.regression) for m in resized],
            lambda fused: _balanced_squared_error(fused, iou),
        ),
    )


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
