"""From the maps of videos to proposals in seconds (BMN, Lin et al., 2019, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    ends_one_bin_later: bool = False,
) -> DecodedProposals:
    """`decode_batch` for the maps of one video (B = 1), with its ValueErrors."""
    if len(maps.start) != 1:
        raise ValueError(f"maps must be those of one video, got {len(maps.start)}")
    (decoded,) = decode_batch(
        maps,
        scoring=scoring,
        candidates=candidates,
        extent_seconds=[extent_seconds],
        video_seconds=[video_seconds],
        ends_one_bin_later=ends_one_bin_later,
    )
    return decoded


@torch.no_grad()
def decode_batch(
    maps: BoundaryMaps,
    *,
    scoring: Scoring,
    candidates: Candidates = "peaks",
    extent_seconds: Sequence[float],
    video_seconds: Sequence[float],
    ends_one_bin_later: bool = False,
) -> list[DecodedProposals]:
    """Pair every candidate start with every candidate end that is not before it, in B videos.

    A video's proposals do not depend on the others in the batch, not even in the last bit. All
    steps are taken for all videos at once but two, the powers and the sorting.

    Args:
        maps: of B videos.
        scoring: "detection" is cls^1.2 * reg, "recall" is start * end * cls * reg.
        candidates: which bins may be boundaries: "peaks" and high ones (`candidate_boundaries`) and
            the first start and the last end, or "all", which costs D²/2 candidates and finds more
            in short videos of few bins.
        extent_seconds: of each video, the span, from 0, that the D bins cover. The window of bins
            t .. e becomes [t, e + 1] / D * extent_seconds, as in the targets.
        video_seconds: of each video; its proposals are clipped to it, and left out when nothing
            remains.
        ends_one_bin_later: a quirk of JJBOY's BMN and mmaction2, which take the end probability of
            the window of bins t .. e from bin e + 1. The last bin has none after it, so they never
            propose a window that ends with the extent: of D(D+1)/2 windows D are lost.

    Raises:
        ValueError: for an unknown choice, or spans that are not B positive numbers.
    """
    _check_choices(maps, scoring, candidates, extent_seconds, video_seconds)
    start, end = maps.start.double(), maps.end.double()
    is_start, is_end = _candidate_bins(start, end, candidates)
    if ends_one_bin_later:
        end, is_end = end.roll(-1, dims=1), is_end.roll(-1, dims=1)
        is_end[:, -1] = False
    video, first, last = (is_start[:, :, None] & is_end[:, None, :]).triu().nonzero().unbind(1)
    cell = (video * maps.num_bins + last - first) * maps.num_bins + first
    scores = maps.regression.take(cell).double()
    classification = maps.classification.take(cell).double()
    if scoring == "detection":
        scores = scores * _raised(classification, video.bincount(minlength=len(start)))
    else:
        start_bin, end_bin = video * maps.num_bins + first, video * maps.num_bins + last
        scores = scores * classification * start.take(start_bin) * end.take(end_bin)

    extent, length = scores.new_tensor([extent_seconds, video_seconds]).unsqueeze(2)
    bins = torch.arange(maps.num_bins + 1, device=scores.device)
    bounds = (bins.double() / maps.num_bins * extent).minimum(length)
    row = video * len(bins)
    segments = torch.stack([bounds.take(row + first), bounds.take(row + last + 1)], dim=1)
    remaining = (segments[:, 1] > segments[:, 0]).nonzero().squeeze(1)
    counts = video[remaining].bincount(minlength=len(start)).tolist()
    of_videos = (torch.split(kept[remaining], counts) for kept in (segments, scores))
    return [_best_first(*own) for own in zip(*of_videos, strict=True)]


def _candidate_bins(start: Tensor, end: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """Which bins of the start and end curves [B, D] may be boundaries: bool [B, D] both."""
    if candidates == "all":
        return torch.ones_like(start).bool(), torch.ones_like(end).bool()
    is_start, is_end = candidate_boundaries(start), candidate_boundaries(end)
    is_start[:, 0] = True
    is_end[:, -1] = True
    return is_start, is_end


def candidate_boundaries(probabilities: Tensor) -> Tensor:
    """Bins [..., D] that may be a boundary: peaks, and all above half of the video's maximum.

    A peak is a run of equal values with a lower value on both sides; all its bins count.
    """
    num_bins = probabilities.shape[-1]
    bins = torch.arange(num_bins, device=probabilities.device).expand_as(probabilities)
    changes = probabilities[..., 1:] != probabilities[..., :-1]
    # Of each bin, the first and the last bin of its run, and the values next to them.
    first, last = bins.clone(), bins.clone()
    first[..., 1:] = first[..., 1:].where(changes, 0).cummax(dim=-1).values
    last[..., :-1] = last[..., :-1].where(changes, num_bins - 1)
    last = last.flip(-1).cummin(dim=-1).values.flip(-1)
    before = probabilities.gather(-1, (first - 1).clamp(min=0))
    after = probabilities.gather(-1, (last + 1).clamp(max=num_bins - 1))
    # A run at an edge meets itself there, which is not lower.
    is_peak = (probabilities > before) & (probabilities > after)
    return is_peak | (probabilities > PEAK_SHARE * probabilities.amax(dim=-1, keepdim=True))


def _raised(classification: Tensor, counts: Tensor) -> Tensor:
    """cls^1.2 of the candidates of all videos.

    One video at a time, because what torch makes of a power may differ in the last bit with the
    place of the number in the tensor.
    """
    of_videos = torch.split(classification, counts.tolist())
    return torch.cat([classification[:0], *(own**CLASSIFICATION_POWER for own in of_videos)])


def _best_first(segments: Tensor, scores: Tensor) -> DecodedProposals:
    order = scores.argsort(descending=True, stable=True)
    return DecodedProposals(segments[order], scores[order])


def _check_choices(
    maps: BoundaryMaps,
    scoring: Scoring,
    candidates: Candidates,
    extent_seconds: Sequence[float],
    video_seconds: Sequence[float],
) -> None:
    if scoring not in ("detection", "recall"):
        raise ValueError(f"scoring must be 'detection' or 'recall', got {scoring!r}")
    if candidates not in ("peaks", "all"):
        raise ValueError(f"candidates must be 'peaks' or 'all', got {candidates!r}")
    if not len(extent_seconds) == len(video_seconds) == len(maps.start):
        raise ValueError(
            f"extent_seconds and video_seconds must be given for each of {len(maps.start)} videos, "
            f"got {len(extent_seconds)} and {len(video_seconds)}"
        )
    for extent, length in zip(extent_seconds, video_seconds, strict=True):
        if not (0 < extent < math.inf and 0 < length < math.inf):
            raise ValueError(
                "extent_seconds and video_seconds must be positive and finite, "
                f"got {extent} and {length}"
            )
