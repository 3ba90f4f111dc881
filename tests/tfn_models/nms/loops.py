"""The slow definitions that the suppression is compared with."""

import math

import torch
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.nms import DETECTION_NMS, RECALL_NMS, SoftNms
from tfn_models.segments import pairwise_iou

EXAMPLES = hypothesis_settings(deadline=None, max_examples=50)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# Few values, so that equal segments, equal scores and segments without length are common.
BOUNDS = st.lists(st.integers(0, 12).map(float), min_size=2, max_size=2).map(sorted)
ODD_BOUNDS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2).map(sorted)
SCORES = st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0, 5e-324, 1e-300, 1e-30, 1e30, 1e300])
BOXES = st.lists(st.tuples(BOUNDS | ODD_BOUNDS, SCORES), max_size=40)
GRID_BOXES = st.lists(st.tuples(BOUNDS, st.integers(0, 5).map(lambda n: n / 5)), max_size=14)
TYPES = st.sampled_from([torch.float32, torch.float64])
SETTINGS = [
    DETECTION_NMS,
    RECALL_NMS,
    SoftNms(threshold=0.3),
    SoftNms(max_outputs=3, sigma=0.9, iou_power=1.0),
    SoftNms(rule="linear"),
    SoftNms(rule="linear", threshold=0.3, threshold_per_width=0.2),
]
QUIRKS = [
    SoftNms(iou_power=2.5, loses_last=True),
    SoftNms(iou_power=2.5, decays_at_threshold=True),
    SoftNms(threshold=0.5, decays_at_threshold=True),
    SoftNms(rule="linear", threshold=0.25, decays_at_threshold=True, added_length=1e-6),
    SoftNms(threshold=0.2, threshold_per_width=0.5, decays_at_threshold=True, added_length=0.5),
]


def as_tensors(
    boxes: list[tuple[list[float], float]],
    *,
    segments_type: torch.dtype = torch.float64,
    scores_type: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    segments = torch.tensor([box for box, _ in boxes], dtype=torch.float64).reshape(-1, 2)
    scores = torch.tensor([score for _, score in boxes], dtype=torch.float64)
    largest = torch.finfo(scores_type).max
    return segments.to(segments_type), scores.clamp(max=largest).to(scores_type)


def loop_iou(first: list[float], second: list[float], *, added_length: float = 0.0) -> float:
    lengths = [end - start + added_length for start, end in (first, second)]
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = sum(lengths) - shared
    return shared / union if union > 0 else 0.0


def plain_soft_nms(
    segments: Tensor, scores: Tensor, *, settings: SoftNms, video_length: float
) -> tuple[Tensor, Tensor]:
    """After each pick, one torch expression for all that overlap it, which sets every last bit.

    Torch's powers of many numbers are not quite those of single ones; `check_picks` allows for it.
    """
    left = scores.clone()
    lengths = segments[:, 1] - segments[:, 0] + settings.added_length
    num_picks = len(scores)
    if settings.loses_last and num_picks > 1:
        num_picks -= 1
    indices, kept_scores = [], []
    for _ in range(min(settings.max_outputs, num_picks)):
        best = left.argmax()
        indices.append(best)
        kept_scores.append(left[best].clone())
        threshold = settings.threshold + settings.threshold_per_width * (
            lengths[best] / video_length
        )
        iou = pairwise_iou(segments, segments[best][None])[:, 0]
        if settings.added_length:
            shared = segments[:, 1].minimum(segments[best, 1]) - segments[:, 0].maximum(
                segments[best, 0]
            )
            shared = shared.clamp(min=0)
            iou = shared / (lengths + lengths[best] - shared)
        exceeds = (
            (iou >= threshold) & (iou > 0) if settings.decays_at_threshold else iou > threshold
        )
        overlapping = (exceeds & (left >= 0)).nonzero()[:, 0]
        overlap = iou[overlapping]
        if settings.rule == "linear":
            left[overlapping] *= 1 - overlap
        else:
            left[overlapping] *= torch.exp(-(overlap**settings.iou_power) / settings.sigma)
        left[best] = -1.0
    if not indices:
        return torch.empty(0, dtype=torch.int64), scores[:0]
    return torch.stack(indices), torch.stack(kept_scores)


def check_picks(
    indices: Tensor,
    kept_scores: Tensor,
    *,
    boxes: list[tuple[list[float], float]],
    settings: SoftNms,
    video_length: float,
) -> None:
    """Replay the picks in Python's floats: each is the best left, and has the score left to it."""
    segments, left = [box for box, _ in boxes], dict(enumerate(score for _, score in boxes))
    for picked, score in zip(indices.tolist(), kept_scores.tolist(), strict=True):
        assert math.isclose(score, left[picked], rel_tol=1e-12, abs_tol=1e-300)
        # A hair below the best: powers differ in the last bit between one and many numbers.
        assert left[picked] >= max(left.values()) * (1 - 1e-12)
        del left[picked]
        length = segments[picked][1] - segments[picked][0] + settings.added_length
        threshold = settings.threshold + settings.threshold_per_width * (length / video_length)
        for index in left:
            added = settings.added_length
            iou = loop_iou(segments[picked], segments[index], added_length=added)
            if iou > threshold or (settings.decays_at_threshold and iou == threshold):
                decay = math.exp(-(iou**settings.iou_power) / settings.sigma)
                left[index] *= 1 - iou if settings.rule == "linear" else decay
