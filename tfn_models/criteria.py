"""Criteria that training and fusion share, so that both ask the same of a boundary map."""

from __future__ import annotations

from torch import Tensor

BOUNDARY_THRESHOLD = 0.5
"""A bin is a boundary where its target is above this."""
ACTION_IOU = 0.9
"""A window is an action where its best IoU is above this."""
IOU_CLASSES = (0.3, 0.7)
"""Windows fall in three classes by IoU: up to the first, up to the second, above the second."""
_EPSILON = 1e-6


def balanced_logistic(probabilities: Tensor, positive: Tensor) -> Tensor:
    """Weighted binary logistic loss (BSN, Lin et al., 2018, equation 3), a scalar.

    Positives and negatives, of any shape, count one half each whatever their numbers:
    -(mean over positives of log p + mean over negatives of log (1 - p)) / 2.
    A kind that is absent adds zero, so the loss is always finite.
    """
    weight = positive.to(probabilities.dtype)
    absent = 1 - weight
    on_positives = (weight * (probabilities + _EPSILON).log()).sum() / weight.sum().clamp(min=1)
    on_negatives = (absent * (1 - probabilities + _EPSILON).log()).sum() / absent.sum().clamp(min=1)
    return -(on_positives + on_negatives) / 2


def iou_classes(iou: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of low (IoU <= 0.3), middle and high (> 0.7) windows [...], in the shape of `iou`."""
    low, high = (iou <= IOU_CLASSES[0]), (iou > IOU_CLASSES[1])
    return low, ~low & ~high, high
