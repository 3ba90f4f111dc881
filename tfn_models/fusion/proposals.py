"""Fusion of Refine Networks (TFN section 2.3).

All refine the same proposals, so their boundaries and scores can be summed by weight.

Weights of boundaries must have sum 1: a video that starts s seconds later has all its boundaries s
later, and a sum by weights must be s later too, not s times the sum of the weights. So "free"
weights are free in sign and size, but keep their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.fusion.weights import (
    MemberWeights,
    Parametrisation,
    fit_weights,
    uniform_weights,
    weighted_sum,
)
from tfn_models.segments import pairwise_iou

MATCHED_IOU = 0.5
"""A proposal belongs to an action when the mean of its refinements overlaps it this much."""


@dataclass(frozen=True)
class RefinedVideo:
    """The refinements of one held-out video's proposals by M refiners."""

    segments: Tensor
    """[M, N, 2] refined start and end, seconds."""
    scores: Tensor
    """[M, N] predicted IoU (not multiplied with the score of the proposal)."""
    actions: Tensor
    """[G, 2] annotated start and end, seconds."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        _check_refined(self.segments, self.scores)
        if self.actions.dim() != 2 or self.actions.shape[1] != 2:
            raise ValueError(f"actions must be [G, 2], got shape {tuple(self.actions.shape)}")


class RefinedFusion(nn.Module):
    """The refiners' segments and scores, summed by learned weights; a new one gives their mean."""

    def __init__(self, num_members: int, *, parametrisation: Parametrisation = "simplex") -> None:
        """Start from uniform weights.

        Args:
            num_members: M.
            parametrisation: of the weights, whose sum is always 1.
        """
        super().__init__()
        self.weights = MemberWeights(num_members, parametrisation=parametrisation, keeps_sum=True)

    def forward(self, segments: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Segments [M, N, 2] and scores [M, N] of all members -> fused [N, 2] and [N]."""
        return fuse_refined(segments, scores, self.weights())


def fuse_refined(segments: Tensor, scores: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Segments [M, N, 2], scores [M, N] and weights [M] -> fused segments [N, 2], scores [N].

    Negative weights may bring a start behind its end, then the two change places, or a score out
    of 0..1, where it is cut off. Weights of a simplex do neither.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_refined(segments, scores)
    fused = weighted_sum(segments, weights)
    in_order = torch.stack((fused.amin(dim=-1), fused.amax(dim=-1)), dim=-1)
    return in_order, weighted_sum(scores, weights).clamp(0, 1)


def fit_refined_fusion(
    videos: Sequence[RefinedVideo],
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> RefinedFusion:
    """Train a `RefinedFusion`: one weight a refiner for both boundaries and scores.

    The sum of two means is minimised: over proposals that belong to an action, the smooth-L1
    distance of the fused boundaries from it, in lengths of the action; over all proposals, the
    squared difference between the fused score and the true IoU. Which action a proposal belongs
    to, and its true IoU, are those of the mean of the refinements, and stay fixed.

    Args:
        videos: held-out videos, refined by the same M refiners.
        parametrisation: of the weights, see `RefinedFusion`.
        penalty: pull towards uniform weights, see `fit_weights`.
        max_steps: of L-BFGS.

    Raises:
        ValueError: there is no video, or the number of refiners differs.
    """
    if not videos:
        raise ValueError("videos must hold at least one video, got none")
    members = {len(video.scores) for video in videos}
    if len(members) != 1:
        raise ValueError(f"all videos must have the same refiners, got numbers {sorted(members)}")
    matches = [_match(video) for video in videos]
    segments = torch.cat([video.segments for video in videos], dim=1).detach().cpu().double()
    scores = torch.cat([video.scores for video in videos], dim=1).detach().cpu().double()
    actions = torch.cat([match[0] for match in matches])
    iou = torch.cat([match[1] for match in matches])
    matched = iou >= MATCHED_IOU
    lengths = (actions[:, 1] - actions[:, 0]).unsqueeze(1)[matched]
    targets = actions[matched] / lengths
    scaled = segments[:, matched] / lengths

    def criterion(weights: Tensor) -> Tensor:
        score_error = (weighted_sum(scores, weights) - iou).square().sum()
        offset_error = F.smooth_l1_loss(weighted_sum(scaled, weights), targets, reduction="sum")
        return score_error / max(len(iou), 1) + offset_error / max(targets.numel(), 1)

    fusion = RefinedFusion(members.pop(), parametrisation=parametrisation)
    fit_weights(fusion.weights, criterion, penalty=penalty, max_steps=max_steps)
    return fusion


def fit_refiner_weights(
    videos: Sequence[RefinedVideo],
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> Tensor:
    """The weights fp64 [M] of `fit_refined_fusion`, whose arguments and errors these are."""
    fusion = fit_refined_fusion(
        videos, parametrisation=parametrisation, penalty=penalty, max_steps=max_steps
    )
    weights: Tensor = fusion.weights()
    return weights.detach()


def _match(video: RefinedVideo) -> tuple[Tensor, Tensor]:
    """The action [N, 2] nearest to each proposal and the IoU [N] with it; zeros without actions."""
    segments = video.segments.detach().cpu().double()
    fused = weighted_sum(segments, uniform_weights(len(segments)))
    if len(video.actions) == 0 or len(fused) == 0:
        return torch.zeros_like(fused), fused.new_zeros(len(fused))
    actions = video.actions.cpu().double()
    iou, best = pairwise_iou(fused, actions).max(dim=1)
    return actions[best], iou


def _check_refined(segments: Tensor, scores: Tensor) -> None:
    if scores.dim() != 2 or segments.shape != (*scores.shape, 2):
        raise ValueError(
            "segments must be [M, N, 2] and scores [M, N], "
            f"got {tuple(segments.shape)} and {tuple(scores.shape)}"
        )
