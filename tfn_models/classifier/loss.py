"""Classification loss: cross-entropy with Batch Nuclear-norm Maximization (paper, section 1.1).

Source: Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under
Label Insufficient Situations", CVPR 2020, equation 10. Theirs takes unlabelled batches; the paper
adds it to the loss of the labelled ones, and so do we.

Shapes: B videos or clips, K classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass(frozen=True)
class ClassifierLoss:
    """The loss to minimise and its parts, all scalars."""

    total: Tensor
    """cross_entropy - nuclear_norm_weight * nuclear_norm."""
    cross_entropy: Tensor
    """Mean over the batch, nats."""
    nuclear_norm: Tensor | None = None
    """||softmax(logits)||_* / B, in (0, 1]: high where predictions are sure and diverse; None where
    it has no weight."""

    def __post_init__(self) -> None:
        """Check that all parts are scalars."""
        parts = {name: part for name, part in vars(self).items() if part is not None}
        shapes = {name: list(part.shape) for name, part in parts.items()}
        if any(shapes.values()):
            raise ValueError(f"the parts of a loss must be scalars, got {shapes}")


class _NuclearNorm(Function):
    """Sum of the singular values of a matrix, with a gradient that is finite everywhere.

    The gradient is U V^T over the singular values above rounding error: a subgradient where the
    matrix is rank-deficient. It depends on the singular subspaces alone, so repeated singular
    values are no problem, whereas differentiating the vectors themselves divides by the
    differences of singular values.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        # What is no number gives none, and not an error of the decomposition: the caller, who knows
        # the training, tells of it.
        left, values, right = torch.linalg.svd(matrix.nan_to_num(), full_matrices=False)
        smallest = values.max() * max(matrix.shape) * torch.finfo(matrix.dtype).eps
        ctx.save_for_backward((left * (values > smallest)) @ right)
        norm: Tensor = values.sum() + 0 * matrix.sum()
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (direction,) = ctx.saved_tensors
        result: Tensor = grad * direction
        return result


def batch_nuclear_norm(logits: Tensor) -> Tensor:
    """||softmax(logits)||_* / B of logits [B, K]: a scalar, at least in fp32, to be maximised.

    Raises:
        ValueError: logits have another shape or are empty.
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must be [B, K], neither zero, got {list(logits.shape)}")
    at_least_fp32 = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = logits.softmax(dim=1, dtype=at_least_fp32)
        norm: Tensor = _NuclearNorm.apply(probabilities)
    return norm / logits.shape[0]


def classifier_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    nuclear_norm_weight: float = 0.0,
    label_smoothing: float = 0.0,
) -> ClassifierLoss:
    """Compute cross-entropy minus the weighted batch nuclear norm.

    Args:
        logits: [B, K], before softmax.
        labels: [B] int64, class indices.
        nuclear_norm_weight: lambda of the BNM term; with 0 it is not worked out.
        label_smoothing: share of the target spread evenly over all classes, 0 to 1.

    Raises:
        ValueError: there is not one label for each row of logits.
    """
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must be [{logits.shape[0]}], got {list(labels.shape)}")
    cross_entropy = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if nuclear_norm_weight == 0:
        return ClassifierLoss(cross_entropy, cross_entropy.detach())
    nuclear_norm = batch_nuclear_norm(logits)
    return ClassifierLoss(
        total=cross_entropy - nuclear_norm_weight * nuclear_norm,
        cross_entropy=cross_entropy.detach(),
        nuclear_norm=nuclear_norm.detach(),
    )
