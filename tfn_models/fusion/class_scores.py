"""Fusion of video classifiers (TFN section 2.1): one weight a member, on logits before softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.fusion.weights import MemberWeights, Parametrisation, fit_weights, weighted_sum


class ClassFusion(nn.Module):
    """The members' logits, summed by learned weights; a new module gives exactly their mean."""

    def __init__(self, num_members: int, *, parametrisation: Parametrisation = "simplex") -> None:
        """Start from uniform weights.

        Args:
            num_members: M.
            parametrisation: "simplex" keeps the scale of the members' logits, which the
                detections' softmax relies on; "free" is the paper's, and changes the scale too.
        """
        super().__init__()
        self.weights = MemberWeights(num_members, parametrisation=parametrisation)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits [M, V, K] of all members -> fused logits [V, K]."""
        return fuse_class_scores(logits, self.weights())


def fuse_class_scores(logits: Tensor, weights: Tensor) -> Tensor:
    """Logits [M, V, K] and weights [M] -> fused logits [V, K].

    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.dim() != 3:
        raise ValueError(f"logits must be [M, V, K], got shape {tuple(logits.shape)}")
    return weighted_sum(logits, weights)


def fit_class_fusion(
    logits: Tensor,
    labels: Tensor,
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> ClassFusion:
    """Train a `ClassFusion` to minimise the cross-entropy of the fused logits.

    Args:
        logits: [M, V, K] of M members on held-out videos.
        labels: [V] class of each video.
        parametrisation: of the weights, see `ClassFusion`.
        penalty: pull towards uniform weights, see `fit_weights`.
        max_steps: of L-BFGS.

    Raises:
        ValueError: shapes do not fit, logits are not finite, or a label is no class.
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
        return F.cross_entropy(fuse_class_scores(exact, weights), classes)

    fusion = ClassFusion(len(logits), parametrisation=parametrisation)
    fit_weights(fusion.weights, criterion, penalty=penalty, max_steps=max_steps)
    return fusion


def fit_class_weights(
    logits: Tensor,
    labels: Tensor,
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> Tensor:
    """The weights fp64 [M] of `fit_class_fusion`, whose arguments and errors these are."""
    fusion = fit_class_fusion(
        logits, labels, parametrisation=parametrisation, penalty=penalty, max_steps=max_steps
    )
    weights: Tensor = fusion.weights()
    return weights.detach()
