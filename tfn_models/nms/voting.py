"""Segment voting: kept segments move to the weighted mean of those that they suppressed."""

import torch
from torch import Tensor

from tfn_models.nms.kept import check_scored
from tfn_models.segments import pairwise_iou


@torch.no_grad()
def vote_segments(
    kept: Tensor, *, segments: Tensor, scores: Tensor, iou_threshold: float
) -> Tensor:
    """Average each kept segment with all that overlap it well, weighted by their scores.

    Box voting (Gidaris and Komodakis, 2015, section 3.3) in one dimension, as ActionFormer and
    OpenTAD do after class-agnostic NMS: kept segment i becomes Σ_j w_ij · segment_j / Σ_j w_ij with
    w_ij = score_j where IoU(i, j) >= `iou_threshold`, and 0 elsewhere. The scores are those from
    before the NMS. Theirs gives NaN where no weight is above 0; here such a segment stays.

    Shapes: `kept` [n, 2], `segments` [N, 2] in the same unit, with their `scores` [N] of 0 or more
    -> [n, 2] of the type of `kept`. Time and memory grow with n · N.

    Raises:
        ValueError: for shapes or types that do not fit, NaN, infinity, negative scores, or a
            threshold outside of ]0, 1].
    """
    check_scored(segments, scores)
    if kept.ndim != 2 or kept.shape[1] != 2 or not bool(kept.isfinite().all()):
        raise ValueError(f"kept must be finite [n, 2], got {list(kept.shape)} or NaN or infinity")
    if bool((scores < 0).any()):
        raise ValueError(f"scores must be 0 or more to be weights, got {float(scores.min())}")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be above 0 and at most 1, got {iou_threshold}")
    bounds = segments.double()
    weights = (pairwise_iou(kept.double(), bounds) >= iou_threshold) * scores.double()
    total = weights.sum(dim=1, keepdim=True)
    voted = (weights @ bounds) / total.where(total > 0, 1.0)
    return voted.to(kept.dtype).where(total > 0, kept)
