"""What a BMN should answer for annotated videos (BMN, Lin et al., 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from tfn_models.boundary_maps import BmnTargets, valid_cell_index, valid_windows

BoundaryGrid: TypeAlias = Literal["window_edges", "bin_starts", "bin_middles"]
"""The instant that bin t stands for, in bins: as a start t and as an end t + 1, the edges of the
windows; or t for both (JJBOY); or t + 1/2 for both (OpenTAD)."""

_INSTANTS_BINS: dict[BoundaryGrid, tuple[float, float]] = {
    "window_edges": (0.0, 1.0),
    "bin_starts": (0.0, 0.0),
    "bin_middles": (0.5, 0.5),
}


def bmn_targets(
    segments: Sequence[Tensor],
    *,
    num_bins: int,
    boundary_width_bins: float = 3.0,
    boundary_grid: BoundaryGrid = "window_edges",
    device: torch.device | str = "cpu",
) -> BmnTargets:
    """Targets of a batch from its actions, one [G, 2] a video in shares (0..1) of the extent.

    IoU targets compare each window with every action and keep the best. Boundary targets are the
    share of a bin-wide interval around the bin's instant that a region of `boundary_width_bins`
    around a start (or end) covers, the best over actions. Which instant that is `boundary_grid`
    says: our windows' own edges, or a grid that starts and ends share, as in other code bases
    (mmaction2 has the middles too, but an interval of two bins). A video without actions gets
    zeros.

    The numbers are worked out in fp64 on `device` and come as fp32.

    Raises:
        ValueError: no video, a video that is not [G, 2], times that are not finite, an action that
            does not end after it starts, or a setting out of its range.
    """
    if not segments:
        raise ValueError("segments must hold at least one video, got none")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    if boundary_width_bins <= 0:
        raise ValueError(f"boundary_width_bins must be positive, got {boundary_width_bins}")
    if boundary_grid not in _INSTANTS_BINS:
        names = ", ".join(get_args(BoundaryGrid))
        raise ValueError(f"boundary_grid must be one of {names}, got {boundary_grid!r}")
    videos = _checked(segments)
    # What a video has fewer than the others, and one more for all, lies infinitely far away.
    padded = pad_sequence(videos, batch_first=True, padding_value=torch.inf)
    padded = pad(padded, (0, 0, 0, 1), value=torch.inf).to(device)
    edges_bins = padded * num_bins
    bins = torch.arange(num_bins, dtype=torch.float64, device=device)
    as_start, as_end = _INSTANTS_BINS[boundary_grid]
    width = boundary_width_bins
    return BmnTargets(
        start=_boundary_target(bins + as_start, edges_bins[..., 0], width_bins=width).float(),
        end=_boundary_target(bins + as_end, edges_bins[..., 1], width_bins=width).float(),
        iou=_best_iou(videos, num_bins=num_bins, device=device),
    )


def _boundary_target(instants: Tensor, boundaries: Tensor, *, width_bins: float) -> Tensor:
    """Share of [instant - 1/2, instant + 1/2] near a boundary, in bins: [B, D] of [D], [B, G]."""
    distance = (instants - boundaries[:, :, None]).abs()
    overlap = ((1 + width_bins) / 2 - distance).clamp(min=0, max=min(1.0, width_bins))
    return overlap.amax(dim=1)


def _best_iou(videos: list[Tensor], *, num_bins: int, device: torch.device | str) -> Tensor:
    """Best IoU of every window with the actions [G, 2] of each of B videos: fp32 [B, D, D].

    It goes action by action, in place in three rows of windows: these stay in the cache, where a
    table of all actions of the batch took three times as long. No window is without length, so
    nothing is divided by 0.
    """
    starts, ends = valid_windows(num_bins).to(device).T.contiguous()
    lengths = ends - starts
    cells = valid_cell_index(num_bins, device=device)
    maps = torch.zeros((len(videos), num_bins * num_bins), device=device)
    shared, other, best = lengths.new_empty((3, len(lengths)))
    for actions, cell_map in zip(videos, maps, strict=True):
        best.zero_()
        for first, last in actions.tolist():
            torch.clamp(ends, max=last, out=shared).sub_(torch.clamp(starts, min=first, out=other))
            union = torch.add(lengths, last - first, out=other).sub_(shared.clamp_(min=0))
            torch.maximum(best, shared.div_(union), out=best)
        cell_map.index_copy_(0, cells, best.float())
    return maps.view(-1, num_bins, num_bins)


def _checked(segments: Sequence[Tensor]) -> list[Tensor]:
    """The actions in fp64 on the CPU."""
    for video in segments:
        if video.dim() != 2 or video.shape[1] != 2:
            raise ValueError(f"segments of a video must be [G, 2], got shape {tuple(video.shape)}")
    every = torch.cat([video.detach().cpu().double() for video in segments])
    bad = ~torch.isfinite(every).all(dim=1) | (every[:, 1] <= every[:, 0])
    if bad.any():
        raise ValueError(
            f"segments must be finite with start before end, got {every[bad][0].tolist()} "
            f"({int(bad.sum())} such segments)"
        )
    return list(torch.split(every, [len(video) for video in segments]))
