"""What a Refine Network should answer, from ground truth. All segments in clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tfn_models.refine.offsets import OffsetScales, encode_offsets
from tfn_models.segments import pairwise_iou


@dataclass(frozen=True)
class StageTargets:
    """Targets of one stage of the cascade, for the segments that it was given."""

    iou: Tensor
    """[B, N] IoU with the best ground truth; 0 in a video without any."""
    offsets: Tensor
    """[B, N, 4] the move to that ground truth; zero where the IoU is."""

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        if self.iou.ndim != 2 or self.offsets.shape != (*self.iou.shape, 4):
            raise ValueError(
                "iou must be [B, N] and offsets [B, N, 4], "
                f"got {list(self.iou.shape)} and {list(self.offsets.shape)}"
            )


@dataclass(frozen=True)
class PaddedTruth:
    """Ground truth of B videos, padded to the G of the one that has most."""

    segments: Tensor
    """[B, G, 2] start and end in clips, zero where not valid."""
    valid: Tensor
    """[B, G] bool."""

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        if self.valid.ndim != 2 or self.segments.shape != (*self.valid.shape, 2):
            raise ValueError(
                "segments must be [B, G, 2] and valid [B, G], "
                f"got {list(self.segments.shape)} and {list(self.valid.shape)}"
            )


def stage_targets(
    segments: Tensor, ground_truth: PaddedTruth, *, scales: OffsetScales
) -> StageTargets:
    """Match each segment with the ground truth of highest IoU, the first of equals.

    Args:
        segments: [B, N, 2] the stage's input, wider than zero.
        ground_truth: of the B videos.
        scales: the units of the offsets.
    """
    overlaps = pairwise_iou(segments, ground_truth.segments) * ground_truth.valid[:, None, :]
    iou, index = overlaps.max(dim=2)
    matched = ground_truth.segments.gather(1, index[:, :, None].expand(-1, -1, 2))
    matched = torch.where((iou > 0)[:, :, None], matched, segments)
    return StageTargets(iou=iou, offsets=encode_offsets(segments, matched, scales=scales))


def action_targets(ground_truth: PaddedTruth, *, mask: Tensor) -> Tensor:
    """How much of each clip one action covers: [B, T] in 0..1.

    Clip k is [k, k + 1); of several actions the one that covers most of it counts. Clips at the
    edge of an action get the share, so the target knows boundaries finer than a clip, and an
    action between two centres is not lost.

    Args:
        ground_truth: of the B videos, in clips.
        mask: [B, T] bool; padding gets 0.
    """
    first = torch.arange(mask.shape[1], device=mask.device)[None, :, None]
    start, end = ground_truth.segments[:, None].unbind(-1)
    covered = (end.minimum(first + 1) - start.maximum(first)).clamp(min=0)
    return (covered * ground_truth.valid[:, None, :]).amax(dim=2) * mask


def pad_ground_truth(ground_truth: Sequence[Tensor], *, like: Tensor) -> PaddedTruth:
    """Lay the ground truth of B videos side by side; G is at least 1.

    Args:
        ground_truth: for each video [G, 2], G may be 0. On the CPU it is checked without waiting
            for a GPU.
        like: a tensor with B as first size; gives dtype and device.

    Raises:
        ValueError: it is not given for B videos, or a segment does not end after it starts.
    """
    if len(ground_truth) != like.shape[0]:
        raise ValueError(
            f"ground truth must be given for {like.shape[0]} videos, got {len(ground_truth)}"
        )
    for video, segments in enumerate(ground_truth):
        if segments.ndim != 2 or segments.shape[1] != 2:
            raise ValueError(
                f"ground truth of video {video} must be [G, 2], got {list(segments.shape)}"
            )
        if not bool((segments[:, 1] > segments[:, 0]).all()):
            raise ValueError(f"ground truth of video {video} must end after it starts")
    most = max(1, max((len(segments) for segments in ground_truth), default=1))
    padded = torch.zeros((len(ground_truth), most, 2), dtype=like.dtype)
    valid = torch.zeros((len(ground_truth), most), dtype=torch.bool)
    for video, segments in enumerate(ground_truth):
        padded[video, : len(segments)] = segments.to(padded)
        valid[video, : len(segments)] = True
    return PaddedTruth(segments=padded.to(like.device), valid=valid.to(like.device))
