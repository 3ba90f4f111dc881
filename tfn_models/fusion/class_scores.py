"""Fusion of video classifiers (TFN section 2.1): one weight a member, on logits before softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tfn_models.fusion.weights import Parametrisation, fit_weights, weighted_sum


def fit_class_weights(
    logits: Tensor,
    labels: Tensor,
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> Tensor:
    """Weights fp64 [M] that minimise the cross-entropy of the weighted logits.

    Args:
        logits: [M, V, K] of M members on held-out videos.
        labels: [V] class of each video.
        parametrisation: "simplex" keeps the scale of the members' logits, which the detections'
            softmax relies on; "free" is the paper's, and changes the scale too.
        penalty: pull towards uniform weights, see `fit_weights`.
        max_steps: of L-BFGS.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[1:2] or 0 in logits.shape:
        raise ValueError(
            "logits must be [M, V, K] and labels [V], none empty, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("logits must be finite, got NaN or infinity")
    if labels.min() < 0 or labels.max() >= logits.shape[2]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[2] - 1}, "
            f"got {int(labels.min())}..{int(labels.max())}"
        )
    exact, classes = logits.detach().cpu().double(), labels.cpu().long()

    def criterion(weights: Tensor) -> Tensor:
        return F.cross_entropy(weighted_sum(exact, weights), classes)

    return fit_weights(
        criterion,
        len(logits),
        parametrisation=parametrisation,
        penalty=penalty,
        max_steps=max_steps,
    )


def fuse_class_scores(logits: Tensor, weights: Tensor) -> Tensor:
    """Logits [M, V, K] and weights [M] -> fused logits [V, K]."""
    if logits.dim() != 3:
        raise ValueError(f"logits must be [M, V, K], got shape {tuple(logits.shape)}")
    return weighted_sum(logits, weights)
