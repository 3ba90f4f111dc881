"""One-dimensional RoI-Align: average features over the bins of a segment."""

import torch
from torch import Tensor

# Narrower bins are widened to this, so that dividing by their width keeps its digits in fp32.
MIN_BIN_CLIPS = 0.01


def roi_align(
    features: Tensor, segments: Tensor, *, num_bins: int, lengths: Tensor | None = None
) -> Tensor:
    """Average the features of each segment over num_bins equal bins.

    Positions are in clip units: clip k occupies [k, k+1) and its feature stands at the centre
    k + 0.5. Between centres the feature is interpolated linearly, before the first and after the
    last centre it is constant, outside the video ([0, length]) it is zero. A bin is the exact
    integral of that function over the bin, divided by the bin's width: RoI-Align (He et al.
    2017) with infinitely many samples, so long segments do not skip clips.

    It is one product with a weight matrix: its gradient is deterministic on a GPU too. Segments
    get no gradient.

    Args:
        features: [B, T, C], one feature a clip.
        segments: [B, N, 2], start and end in clips; may reach outside the video.
        num_bins: bins a segment.
        lengths: [B] valid clips of each video (at least 1), the rest is padding and never read;
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
    with torch.no_grad():
        weights = _bin_weights(segments, num_bins=num_bins, lengths=lengths, num_clips=num_clips)
        valid = torch.arange(num_clips, device=features.device) < lengths[:, None]
    clean = torch.where(valid[:, :, None], features, 0.0)
    bins = torch.bmm(weights.to(features.dtype), clean)
    return bins.view(batch, segments.shape[1], num_bins, channels)


def _bin_weights(segments: Tensor, *, num_bins: int, lengths: Tensor, num_clips: int) -> Tensor:
    """How much each clip counts in each bin: [B, N * num_bins, T]."""
    starts, ends = segments.unbind(-1)
    bin_width = ((ends - starts) / num_bins).clamp(min=0.0)
    order = torch.arange(num_bins, device=segments.device) + 0.5
    centers = (starts[:, :, None] + order * bin_width[:, :, None]).flatten(1)
    half = bin_width.clamp(min=MIN_BIN_CLIPS).div(2).repeat_interleave(num_bins, dim=1)
    low, high = (centers - half)[:, :, None], (centers + half)[:, :, None]
    clips = torch.arange(num_clips, device=segments.device)
    # The video's end, and its first and last centre: between these two the feature is linear.
    last = lengths.to(segments)[:, None, None]
    first_center, last_center = torch.full_like(last, 0.5), last - 0.5

    def linear_part(position: Tensor) -> Tensor:
        return _hat_integral(position.clamp(first_center, last_center) - clips - 0.5)

    before = high.clamp(0.0, 0.5) - low.clamp(0.0, 0.5)
    after = high.clamp(last_center, last) - low.clamp(last_center, last)
    weights = linear_part(high) - linear_part(low)
    weights = weights + before * (clips == 0) + after * (clips == last - 1)
    return weights / (high - low)


def _hat_integral(x: Tensor) -> Tensor:
    """Integral up to x of the linear interpolation kernel max(0, 1 - |x|)."""
    x = x.clamp(-1.0, 1.0)
    return 0.5 + x - 0.5 * x * x.abs()
