"""What a BMN should answer for annotated videos (BMN, Lin et al., 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tfn_models.boundary_maps import BmnTargets, unpack_valid_cells, valid_windows
from tfn_models.segments import pairwise_iou


def bmn_targets(
    segments: Sequence[Tensor], *, num_bins: int, boundary_width_bins: float = 3.0
) -> BmnTargets:
    """Targets of a batch from its actions, one [G, 2] a video in shares (0..1) of the extent.

    IoU targets compare each window with every action and keep the best. Boundary targets are the
    share of a bin-wide interval around the bin's instant that a region of `boundary_width_bins`
    around a start (or end) covers, the best over actions. The instant of bin t is t / D as a
    start and (t + 1) / D as an end, as in the windows; JJBOY and mmaction2 use one grid for both.
    A video without actions gets zeros.
    """
    if not segments:
        raise ValueError("segments must hold at least one video, got none")
    if boundary_width_bins <= 0:
        raise ValueError(f"boundary_width_bins must be positive, got {boundary_width_bins}")
    videos = [_checked(video) for video in segments]
    bins = torch.arange(num_bins, dtype=torch.float64)
    width = boundary_width_bins
    windows = valid_windows(num_bins)
    starts = [_boundary_target(bins, v[:, 0] * num_bins, width_bins=width) for v in videos]
    ends = [_boundary_target(bins + 1, v[:, 1] * num_bins, width_bins=width) for v in videos]
    ious = [_best_iou(windows, video) for video in videos]
    return BmnTargets(
        start=torch.stack(starts).float(),
        end=torch.stack(ends).float(),
        iou=unpack_valid_cells(torch.stack(ious).float()),
    )


def _boundary_target(instants: Tensor, boundaries: Tensor, *, width_bins: float) -> Tensor:
    """Share of [instant - 1/2, instant + 1/2] near a boundary, all in bins: [D] from [D], [G]."""
    distance = (instants.unsqueeze(1) - boundaries).abs()
    overlap = ((1 + width_bins) / 2 - distance).clamp(min=0, max=min(1.0, width_bins))
    return torch.cat([overlap, torch.zeros_like(instants).unsqueeze(1)], dim=1).amax(dim=1)


def _best_iou(windows: Tensor, segments: Tensor) -> Tensor:
    if len(segments) == 0:
        return torch.zeros(len(windows), dtype=windows.dtype)
    return pairwise_iou(windows, segments).amax(dim=1)


def _checked(segments: Tensor) -> Tensor:
    if segments.dim() != 2 or segments.shape[1] != 2:
        raise ValueError(f"segments of a video must be [G, 2], got shape {tuple(segments.shape)}")
    if not torch.isfinite(segments).all() or (segments[:, 1] <= segments[:, 0]).any():
        raise ValueError(f"segments must be finite with start before end, got {segments.tolist()}")
    return segments.detach().cpu().double()
