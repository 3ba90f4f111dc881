"""Training loss of a BMN (Lin et al., 2019, equations 5-9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, pack_valid_cells
from tfn_models.criteria import ACTION_IOU, BOUNDARY_THRESHOLD, balanced_logistic, iou_classes

REGRESSION_WEIGHT = 10.0


@dataclass(frozen=True)
class BmnLoss:
    """Scalars: total = boundary + 10 * regression + classification."""

    total: Tensor
    boundary: Tensor
    """TEM: logistic loss of starts plus that of ends."""
    regression: Tensor
    """PEM: half the mean squared error of IoU over balanced windows."""
    classification: Tensor
    """PEM: logistic loss of windows with IoU > 0.9 against all others."""


def bmn_loss(maps: BoundaryMaps, targets: BmnTargets, *, generator: torch.Generator) -> BmnLoss:
    """Loss of a batch; `generator` draws the windows that the regression counts.

    Only windows that exist count. Counts and balance are over the batch. A batch without actions
    gives a finite loss: an absent kind adds nothing. Windows that touch no action are in the
    lowest class of the regression, where the peers leave them out.

    Args:
        maps: predictions [B, D] and [B, D, D].
        targets: of the same videos on the same D bins.
        generator: one on the CPU draws the same for a network on any device.

    Raises:
        ValueError: maps and targets are not of one shape.
    """
    if maps.start.shape != targets.start.shape:
        raise ValueError(
            "maps and targets must have the same [B, D], "
            f"got {tuple(maps.start.shape)} and {tuple(targets.start.shape)}"
        )
    boundary = balanced_logistic(maps.start.float(), targets.start > BOUNDARY_THRESHOLD)
    boundary = boundary + balanced_logistic(maps.end.float(), targets.end > BOUNDARY_THRESHOLD)
    iou = pack_valid_cells(targets.iou)
    regression = _regression_loss(pack_valid_cells(maps.regression), iou, generator=generator)
    classification = balanced_logistic(
        pack_valid_cells(maps.classification).float(), iou > ACTION_IOU
    )
    return BmnLoss(
        total=boundary + REGRESSION_WEIGHT * regression + classification,
        boundary=boundary,
        regression=regression,
        classification=classification,
    )


def _regression_loss(predicted: Tensor, iou: Tensor, *, generator: torch.Generator) -> Tensor:
    chosen = balanced_windows(iou, generator=generator)
    squared_error = (predicted.float() - iou).square()
    return 0.5 * (squared_error * chosen).sum() / chosen.sum().clamp(min=1)


def balanced_windows(iou: Tensor, *, generator: torch.Generator) -> Tensor:
    """Choose windows [B, P] so that each class of IoU is about as frequent as the high one.

    All high windows are kept, and each low or middle one with probability
    count(high) / count(its class), with at least one high window assumed.
    """
    noise = torch.rand(iou.shape, generator=generator, device=generator.device).to(iou.device)
    low, middle, high = iou_classes(iou)
    quota = high.sum().clamp(min=1)
    chosen_low = low & (noise * low.sum() < quota)
    chosen_middle = middle & (noise * middle.sum() < quota)
    return high | chosen_middle | chosen_low
