"""Hard temporal non-maximum suppression."""

import numpy as np
import torch
from torch import Tensor

from tfn_models.nms.candidates import Candidates
from tfn_models.nms.kept import Kept, check_scored


@torch.no_grad()
def hard_nms(
    segments: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float,
    max_outputs: int | None = None,
    drops_at_threshold: bool = False,
    added_length: float = 0.0,
) -> Kept:
    """Pick the best segment, drop those whose IoU with it is above the threshold, and again.

    Args:
        segments: [N, 2] in any one unit, fp32 or fp64.
        scores: [N], fp32 or fp64; equal ones are picked in the order of their indices.
        iou_threshold: 0..1.
        max_outputs: how many are kept at most; None keeps all that are not dropped.
        drops_at_threshold: a quirk of ActionFormer and OpenTAD: an IoU equal to the threshold drops
            a segment too.
        added_length: another of theirs, who add 1e-6 to every length; in the segments' unit.

    It runs on the CPU, like `soft_nms`.

    Raises:
        ValueError: for shapes or types that do not fit, NaN, infinity, or numbers out of range.
    """
    check_scored(segments, scores)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in 0..1, got {iou_threshold}")
    if max_outputs is not None and max_outputs < 1:
        raise ValueError(f"max_outputs must be at least 1 or None, got {max_outputs}")
    if not 0 <= added_length < float("inf"):
        raise ValueError(f"added_length must be 0 or more and finite, got {added_length}")
    best_first = scores.argsort(descending=True, stable=True)
    candidates = Candidates(segments[best_first], added_length=added_length)
    dropped = np.zeros(len(scores), dtype=bool)
    kept: list[int] = []
    for position in range(len(scores)):
        if dropped[position]:
            continue
        kept.append(position)
        if len(kept) == max_outputs:
            break
        overlapping, _ = candidates.overlapping(
            position, threshold=iou_threshold, at_threshold=drops_at_threshold
        )
        dropped[overlapping] = True
    indices = best_first[torch.tensor(kept, dtype=torch.int64, device=scores.device)]
    return Kept(indices=indices, scores=scores[indices])
