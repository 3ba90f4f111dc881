"""One-dimensional RoI-Align: average features over the bins of a segment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Narrower bins are widened to this, so that dividing by their width keeps its digits in fp32.
MIN_BIN_CLIPS = 0.01


@dataclass(frozen=True)
class _Taps:
    """The clips that each bin touches and how much each counts, bin after bin.

    `clips` and `weights` are [B, N, S], and bin j of a segment begins at `begins` [B, N, num_bins].
    After the last one's clips follow some of weight 0, so that S depends on shapes alone.
    """

    clips: Tensor
    weights: Tensor
    begins: Tensor


def roi_align(
    features: Tensor, segments: Tensor, *, num_bins: int, lengths: Tensor | None = None
) -> Tensor:
    """Average the features of each segment over num_bins equal bins.

    Positions are in clip units: clip k occupies [k, k+1) and its feature stands at the centre
    k + 0.5. Between centres the feature is interpolated linearly, before the first and after the
    last centre it is constant, outside the video ([0, length]) it is zero. A bin is the exact
    integral of that function over the bin, divided by the bin's width: RoI-Align (He et al.
    2017) with infinitely many samples, so long segments do not skip clips.

    It is a weighted sum over the clips that a bin touches, of T + 3 * num_bins a segment at most:
    nothing is summed up along the video, where the small difference of two large sums would lose
    its digits, and no gradient is added up in an order that changes from run to run on a GPU.
    Segments get no gradient.

    Args:
        features: [B, T, C], one feature a clip.
        segments: [B, N, 2], start and end in clips; may reach outside the video.
        num_bins: bins a segment.
        lengths: [B] valid clips of each video (1 to T), the rest is padding and never read;
            None: T.

    Returns:
        [B, N, num_bins, C].

    Raises:
        ValueError: a shape does not fit or num_bins is below 1.
    """
    if features.ndim != 3:
        raise ValueError(f"features must be [B, T, C], got {list(features.shape)}")
    batch, num_clips, channels = features.shape
    if segments.ndim != 3 or segments.shape[0] != batch or segments.shape[2] != 2:
        raise ValueError(f"segments must be [{batch}, N, 2], got {list(segments.shape)}")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    if lengths is None:
        lengths = torch.full((batch,), num_clips, device=features.device)
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must be [{batch}], got {list(lengths.shape)}")
    with torch.no_grad():
        taps = _find_taps(segments, num_bins=num_bins, lengths=lengths, num_clips=num_clips)
        video = torch.arange(batch, device=features.device)[:, None, None]
        rows = taps.clips + video * num_clips
        num_segments, num_taps = taps.clips.shape[1:]
        segment = torch.arange(batch * num_segments, device=features.device)
        begins = taps.begins.flatten(0, 1) + segment[:, None] * num_taps
    bins = nn.functional.embedding_bag(
        rows.flatten(),
        features.flatten(0, 1),
        begins.flatten(),
        mode="sum",
        per_sample_weights=taps.weights.flatten().to(features.dtype),
    )
    return bins.view(batch, num_segments, num_bins, channels)


def _find_taps(segments: Tensor, *, num_bins: int, lengths: Tensor, num_clips: int) -> _Taps:
    low, high = _bin_edges(segments, num_bins=num_bins)
    # The video's end, and its first and last centre: between these two the feature is linear.
    last = lengths.to(segments)[:, None, None]
    linear_low, linear_high = (
        edge.clamp(min=0.5).minimum(last - 0.5) - 0.5 for edge in (low, high)
    )
    first_clip = linear_low.floor()
    # A segment that is not a number has taps too, whose weights are not numbers.
    counts = (linear_high.floor() - first_clip).nan_to_num().long() + 2
    ends = counts.cumsum(-1)
    begins = ends - counts
    # Bins share their edges, so they touch T - 1 + 2 * num_bins clips; if widened, 3 * num_bins.
    num_taps = max(num_clips - 1, num_bins) + 2 * num_bins
    tap = torch.arange(num_taps, device=segments.device).expand(*counts.shape[:2], -1).contiguous()
    of_bin = torch.searchsorted(ends, tap, right=True).clamp(max=num_bins - 1)
    clips = first_clip.gather(-1, of_bin) + (tap - begins.gather(-1, of_bin))
    weights = _hat_integral(linear_high.gather(-1, of_bin) - clips)
    weights = weights - _hat_integral(linear_low.gather(-1, of_bin) - clips)
    before = (high.clamp(0.0, 0.5) - low.clamp(0.0, 0.5)).gather(-1, of_bin)
    after = high.maximum(last - 0.5).minimum(last) - low.maximum(last - 0.5).minimum(last)
    weights = weights + before * (clips == 0) + after.gather(-1, of_bin) * (clips == last - 1)
    return _Taps(
        clips=clips.minimum(last - 1).long().clamp(0, num_clips - 1),
        weights=weights / (high - low).gather(-1, of_bin),
        begins=begins,
    )


def _bin_edges(segments: Tensor, *, num_bins: int) -> tuple[Tensor, Tensor]:
    """Where each bin starts and ends, in clips: both [B, N, num_bins]."""
    starts, ends = segments[..., :1], segments[..., 1:]
    width = ((ends - starts) / num_bins).clamp(min=0.0)
    edges = starts + width * torch.arange(num_bins + 1, device=segments.device)
    centers = starts + width * (torch.arange(num_bins, device=segments.device) + 0.5)
    narrow = width < MIN_BIN_CLIPS
    low = torch.where(narrow, centers - MIN_BIN_CLIPS / 2, edges[..., :-1])
    high = torch.where(narrow, centers + MIN_BIN_CLIPS / 2, edges[..., 1:])
    return low, high


def _hat_integral(x: Tensor) -> Tensor:
    """Integral up to x of the linear interpolation kernel max(0, 1 - |x|)."""
    x = x.clamp(-1.0, 1.0)
    return 0.5 + x - 0.5 * x * x.abs()
