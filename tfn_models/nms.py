"""Temporal non-maximum suppression of one video's segments, soft and hard."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tfn_models.segments import pairwise_iou


@dataclass(frozen=True)
class SoftNms:
    """How soft NMS lowers scores (Bodla et al. 2017, with a threshold that grows with length)."""

    sigma: float = 0.4
    """Scores decay by exp(-iou ** iou_power / sigma)."""
    iou_power: float = 2.0
    """Above 1, small overlaps are forgiven more."""
    threshold: float = 0.0
    """Only segments whose IoU with the picked one is above this decay."""
    threshold_per_width: float = 0.0
    """Added to `threshold` times the picked segment's share of the video's length."""
    max_outputs: int = 100
    """How many segments of a video are kept at most."""

    def __post_init__(self) -> None:
        """Refuse numbers for which the decay is not a decay."""
        for name in ("sigma", "iou_power"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        for name in ("threshold", "threshold_per_width"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more and finite, got {value}")
        if self.max_outputs < 1:
            raise ValueError(f"max_outputs must be at least 1, got {self.max_outputs}")


DETECTION_NMS = SoftNms(sigma=0.4, iou_power=2.5)
"""For mean average precision: everything that overlaps decays."""

RECALL_NMS = SoftNms(sigma=0.4, iou_power=2.0, threshold=0.5, threshold_per_width=0.4)
"""For average recall: JJBOY's rule, under which a long segment suppresses only near copies."""


@dataclass(frozen=True)
class Kept:
    """What is left of N segments: `indices` [n] int64 into them and `scores` [n], best first."""

    indices: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        """Refuse fields that do not belong together."""
        if self.indices.ndim != 1 or self.indices.shape != self.scores.shape:
            raise ValueError(
                "indices and scores must both be [n], got "
                f"{list(self.indices.shape)} and {list(self.scores.shape)}"
            )
        if self.indices.dtype != torch.int64:
            raise ValueError(f"indices must be int64, got {self.indices.dtype}")


@torch.no_grad()
def soft_nms(segments: Tensor, scores: Tensor, *, settings: SoftNms, video_length: float) -> Kept:
    """Pick the best segment, lower the scores of those that overlap it, and again.

    Shapes: `segments` [N, 2] in any unit, `video_length` in the same one, `scores` [N].
    Scores are 0 or more; equal ones are picked in the order of their indices. Returns the lowered
    scores, and zeros too: the caller decides what is too low.
    """
    _check_scored(segments, scores)
    if bool((scores < 0).any()):
        raise ValueError(f"scores must be 0 or more to decay, got {float(scores.min())}")
    if not (math.isfinite(video_length) and video_length > 0):
        raise ValueError(f"video_length must be positive and finite, got {video_length}")
    left = scores.clone()
    indices, kept_scores = [], []
    for _ in range(min(settings.max_outputs, len(scores))):
        best = left.argmax()
        indices.append(best)
        kept_scores.append(left[best].clone())
        picked = segments[best]
        width = (picked[1] - picked[0]) / video_length
        threshold = settings.threshold + settings.threshold_per_width * width
        iou = pairwise_iou(segments, picked[None])[:, 0]
        overlapping = ((iou > threshold) & (left >= 0)).nonzero()[:, 0]
        left[overlapping] *= torch.exp(-(iou[overlapping] ** settings.iou_power) / settings.sigma)
        left[best] = -1.0  # below every score, so never picked again
    return _kept(indices, kept_scores, like=scores)


@torch.no_grad()
def hard_nms(
    segments: Tensor, scores: Tensor, *, iou_threshold: float, max_outputs: int | None = None
) -> Kept:
    """Pick the best segment, drop those whose IoU with it is above the threshold, and again.

    Shapes: `segments` [N, 2], `scores` [N]; equal scores are picked in the order of their indices.
    """
    _check_scored(segments, scores)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in 0..1, got {iou_threshold}")
    if max_outputs is not None and max_outputs < 1:
        raise ValueError(f"max_outputs must be at least 1 or None, got {max_outputs}")
    waiting = scores.argsort(descending=True, stable=True)
    indices: list[Tensor] = []
    while len(waiting) and (max_outputs is None or len(indices) < max_outputs):
        best, waiting = waiting[0], waiting[1:]
        indices.append(best)
        iou = pairwise_iou(segments[waiting], segments[best][None])[:, 0]
        waiting = waiting[iou <= iou_threshold]
    return _kept(indices, [scores[index] for index in indices], like=scores)


def _kept(indices: list[Tensor], scores: list[Tensor], *, like: Tensor) -> Kept:
    if not indices:
        empty = torch.empty(0, dtype=torch.int64, device=like.device)
        return Kept(indices=empty, scores=like.new_empty(0))
    return Kept(indices=torch.stack(indices), scores=torch.stack(scores))


def _check_scored(segments: Tensor, scores: Tensor) -> None:
    if segments.shape != (*scores.shape, 2) or scores.ndim != 1:
        raise ValueError(
            "segments must be [N, 2] and scores [N], got "
            f"{list(segments.shape)} and {list(scores.shape)}"
        )
    if not (bool(segments.isfinite().all()) and bool(scores.isfinite().all())):
        raise ValueError(
            "segments and scores must be finite; drop or repair NaN and infinity first"
        )
