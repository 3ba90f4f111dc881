"""From the maps of one video to proposals in seconds (BMN, Lin et al., 2019, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tfn_models.boundary_maps import BoundaryMaps

Scoring = Literal["detection", "recall"]
Candidates = Literal["peaks", "all"]
CLASSIFICATION_POWER = 1.2
PEAK_SHARE = 0.5


@dataclass(frozen=True)
class DecodedProposals:
    """Proposals of one video, best first; equal scores by start, then end."""

    segments: Tensor
    """[N, 2] fp64 start and end in seconds."""
    scores: Tensor
    """[N] fp64."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        if self.segments.shape != (*self.scores.shape, 2) or self.scores.dim() != 1:
            raise ValueError(
                "segments must be [N, 2] and scores [N], "
                f"got {tuple(self.segments.shape)} and {tuple(self.scores.shape)}"
            )


def decode_proposals(
    maps: BoundaryMaps,
    *,
    scoring: Scoring,
    candidates: Candidates = "peaks",
    extent_seconds: float,
    video_seconds: float,
) -> DecodedProposals:
    """Pair every candidate start with every candidate end that is not before it.

    Args:
        maps: of one video (B = 1).
        scoring: "detection" is cls^1.2 * reg, "recall" is start * end * cls * reg.
        candidates: which bins may be boundaries: "peaks" and high ones (`candidate_boundaries`), or
            "all", which costs D²/2 candidates and finds more in short videos of few bins.
        extent_seconds: the span, from 0, that the D bins cover. The window of bins t .. e becomes
            [t, e + 1] / D * extent_seconds, as in the targets.
        video_seconds: proposals are clipped to it, and left out when nothing remains.
    """
    if len(maps.start) != 1:
        raise ValueError(f"maps must be those of one video, got {len(maps.start)}")
    if scoring not in ("detection", "recall"):
        raise ValueError(f"scoring must be 'detection' or 'recall', got {scoring!r}")
    if candidates not in ("peaks", "all"):
        raise ValueError(f"candidates must be 'peaks' or 'all', got {candidates!r}")
    if extent_seconds <= 0 or video_seconds <= 0:
        raise ValueError(
            f"extent_seconds and video_seconds must be positive, got {extent_seconds} "
            f"and {video_seconds}"
        )
    start, end = maps.start[0].detach().double(), maps.end[0].detach().double()
    if candidates == "all":
        is_start = is_end = torch.ones_like(start, dtype=torch.bool)
    else:
        is_start, is_end = candidate_boundaries(start), candidate_boundaries(end)
        is_start[0] = True
        is_end[-1] = True
    pairs = torch.cartesian_prod(is_start.nonzero().squeeze(1), is_end.nonzero().squeeze(1))
    first, last = pairs[pairs[:, 0] <= pairs[:, 1]].unbind(1)
    classification = maps.classification[0, last - first, first].detach().double()
    scores = maps.regression[0, last - first, first].detach().double()
    if scoring == "detection":
        scores = scores * classification**CLASSIFICATION_POWER
    else:
        scores = scores * classification * start[first] * end[last]

    bounds = torch.stack([first, last + 1], dim=1).double() / maps.num_bins * extent_seconds
    segments = bounds.clamp(max=video_seconds)
    remains = segments[:, 1] > segments[:, 0]
    segments, scores = segments[remains], scores[remains]
    best_first = scores.argsort(descending=True, stable=True)
    return DecodedProposals(segments=segments[best_first], scores=scores[best_first])


def candidate_boundaries(probabilities: Tensor) -> Tensor:
    """Bins [D] that may be a boundary: peaks, and all above half of the maximum.

    A peak is a run of equal values with a lower value on both sides; all its bins count.
    """
    values, run_of_bin = torch.unique_consecutive(probabilities, return_inverse=True)
    is_peak = torch.zeros_like(values, dtype=torch.bool)
    is_peak[1:-1] = (values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])
    return is_peak[run_of_bin] | (probabilities > PEAK_SHARE * probabilities.max())
