"""Soft temporal non-maximum suppression (Bodla et al., 2017), with the rules of the field.

Who does what, and the settings that give the same (numbers are each one's defaults):

- JJBOY's BMN and mmaction2: exp(-iou² / alpha) where the IoU is above low + (high - low) · width,
  and width is the picked segment's share of the video: `threshold=low`,
  `threshold_per_width=high - low`, `sigma=alpha`; 0.5, 0.9 and 0.4 in mmaction2 (`RECALL_NMS`).
  Both pick 101 segments, sort them by an unstable sort and cut at 100; scores never rise from pick
  to pick, so this is our top 100 but for the order of equal scores.
- TCANet: exp(-iou^2.5 / 0.4), threshold 0 (`DETECTION_NMS`). Its loop ends while one segment is
  left, so a video of at most 100 segments loses its last one: `loses_last`.
- OpenTAD: both Gaussians and the linear rule in fp32, IoU equal to the threshold included
  (`decays_at_threshold`), every length 1e-6 longer (`added_length`), the width of the third rule
  in bins or in shares, as its config says. It also drops what falls below a minimal score, the
  same as cutting our result there, and picks equal scores in an order of its own.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tfn_models.nms.candidates import Candidates
from tfn_models.nms.kept import Kept, check_scored

Rule = Literal["gaussian", "linear"]
PICKED = -1.0  # below every score, so never picked again


@dataclass(frozen=True)
class SoftNms:
    """How soft NMS lowers scores. The last three fields are quirks of peers, off by default."""

    sigma: float = 0.4
    """The Gaussian rule multiplies scores by exp(-iou ** iou_power / sigma)."""
    iou_power: float = 2.0
    """Above 1, the Gaussian rule forgives small overlaps more."""
    threshold: float = 0.0
    """Only segments whose IoU with the picked one is above this decay."""
    threshold_per_width: float = 0.0
    """Added to `threshold` times the picked segment's share of the video's length."""
    max_outputs: int = 100
    """How many segments of a video are kept at most."""
    rule: Rule = "gaussian"
    """"linear" multiplies by 1 - iou, whatever `sigma` and `iou_power` (Bodla et al., eq. 1)."""
    decays_at_threshold: bool = False
    """An IoU equal to the threshold decays too, as in Bodla et al. and OpenTAD."""
    added_length: float = 0.0
    """Added to every length, in the segments' unit; OpenTAD and ActionFormer add 1e-6."""
    loses_last: bool = False
    """Of 2 segments or more, the one left at the very end is not kept (TCANet)."""

    def __post_init__(self) -> None:
        """Refuse numbers for which the decay is not a decay."""
        for name in ("sigma", "iou_power"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        for name in ("threshold", "threshold_per_width", "added_length"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more and finite, got {value}")
        if self.max_outputs < 1:
            raise ValueError(f"max_outputs must be at least 1, got {self.max_outputs}")
        if self.rule not in ("gaussian", "linear"):
            raise ValueError(f"rule must be 'gaussian' or 'linear', got {self.rule!r}")


DETECTION_NMS = SoftNms(sigma=0.4, iou_power=2.5)
"""For mean average precision: everything that overlaps decays (TCANet)."""

RECALL_NMS = SoftNms(sigma=0.4, iou_power=2.0, threshold=0.5, threshold_per_width=0.4)
"""For average recall: JJBOY's rule, under which a long segment suppresses only near copies."""


@torch.no_grad()
def soft_nms(segments: Tensor, scores: Tensor, *, settings: SoftNms, video_length: float) -> Kept:
    """Pick the best segment, lower the scores of those that overlap it, and again.

    Shapes: `segments` [N, 2] in any unit, `video_length` in the same one, `scores` [N], each fp32
    or fp64. Scores are 0 or more; equal ones are picked in the order of their indices. Returns the
    lowered scores, and zeros too: the caller decides what is too low.

    Indices and scores are bit for bit those of the plain loop that decays, after each pick, all
    that overlap it by one torch expression. A loop over single segments may differ from both in the
    last bit of a score unless `iou_power` is 2, as torch raises one number to a power by other code
    than many. It runs on the CPU, where a small step takes less than a launch on a GPU does;
    tensors of another device are copied there, and the result is copied back.

    Raises:
        ValueError: for shapes or types that do not fit, NaN, infinity, negative scores, or a video
            without length.
    """
    check_scored(segments, scores)
    if bool((scores < 0).any()):
        raise ValueError(f"scores must be 0 or more to decay, got {float(scores.min())}")
    if not (math.isfinite(video_length) and video_length > 0):
        raise ValueError(f"video_length must be positive and finite, got {video_length}")
    candidates = Candidates(segments, added_length=settings.added_length)
    widths = candidates.lengths / video_length
    thresholds = settings.threshold + settings.threshold_per_width * widths
    left = scores.detach().cpu().numpy().copy()
    indices, kept_scores = [], []
    for _ in range(_num_picks(len(left), settings)):
        best = int(left.argmax())
        indices.append(best)
        kept_scores.append(left[best])
        overlapping, iou = candidates.overlapping(
            best, threshold=thresholds[best], at_threshold=settings.decays_at_threshold
        )
        left[overlapping] *= _decay(iou, settings).numpy()
        left[best] = PICKED
        candidates.take_out(best)
    return Kept(
        indices=torch.tensor(indices, dtype=torch.int64, device=scores.device),
        scores=torch.tensor(np.array(kept_scores, dtype=left.dtype), device=scores.device),
    )


def _num_picks(num_segments: int, settings: SoftNms) -> int:
    available = num_segments - 1 if settings.loses_last and num_segments > 1 else num_segments
    return min(settings.max_outputs, available)


def _decay(iou: Tensor, settings: SoftNms) -> Tensor:
    """What the scores of segments with this IoU are multiplied by."""
    if settings.rule == "linear":
        return 1 - iou
    return torch.exp(-(iou**settings.iou_power) / settings.sigma)
