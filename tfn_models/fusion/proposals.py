"""Fusion of Refine Networks (TFN section 2.3).

All refine the same proposals, so their boundaries and scores can be summed by weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tfn_models.fusion.weights import fit_weights, uniform_weights, weighted_sum
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


def fuse_refined(segments: Tensor, scores: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Segments [M, N, 2], scores [M, N] and weights [M] -> fused segments [N, 2], scores [N]."""
    _check_refined(segments, scores)
    return weighted_sum(segments, weights), weighted_sum(scores, weights)


def fit_refiner_weights(
    videos: Sequence[RefinedVideo], *, penalty: float = 1e-2, max_steps: int = 100
) -> Tensor:
    """Weights fp64 [M] on the simplex, one a refiner for both boundaries and scores.

    The sum of two means is minimised: over proposals that belong to an action, the smooth-L1
    distance of the fused boundaries from it, in lengths of the action; over all proposals, the
    squared difference between the fused score and the true IoU. Which action a proposal belongs
    to, and its true IoU, are those of the mean of the refinements, and stay fixed.
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

    return fit_weights(criterion, members.pop(), penalty=penalty, max_steps=max_steps)


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
