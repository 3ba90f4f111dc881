"""The encoding of a move from a proposal to a better segment, for training and inference.

A move is four numbers, in units of the proposal's width: to the centre, of the log-width, to the
start and to the end. The first two and the last two each describe the whole move; decoding
averages both answers (TCANet's complementary regression). Encoding divides by the very scales
that decoding multiplies by, so a network's target is what its output means. (TCANet scales
start and end by 1.0 in training and 0.2 in test.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# A decoded width stays within this factor of the proposal's: no overflow early in training.
MAX_LOG_WIDTH = 4.0


@dataclass(frozen=True)
class OffsetScales:
    """What an offset of 1 means, so that the four have similar spread (Cascade R-CNN's values)."""

    center: float = 0.1
    """Move of the centre, in proposal widths."""
    log_width: float = 0.2
    """Change of the natural logarithm of the width."""
    boundary: float = 0.1
    """Move of the start or the end, in proposal widths."""

    def __post_init__(self) -> None:
        """Refuse scales that are not positive."""
        if min(self.center, self.log_width, self.boundary) <= 0:
            raise ValueError(f"offset scales must be positive, got {self}")

    @property
    def all(self) -> tuple[float, float, float, float]:
        """The scales of the four offsets, in their order."""
        return self.center, self.log_width, self.boundary, self.boundary


def encode_offsets(proposals: Tensor, targets: Tensor, *, scales: OffsetScales) -> Tensor:
    """Offsets [..., 4] that move proposals [..., 2] to targets [..., 2].

    All segments in one unit and wider than zero.
    """
    width = proposals[..., 1] - proposals[..., 0]
    target_width = targets[..., 1] - targets[..., 0]
    moves = (
        (targets.sum(-1) - proposals.sum(-1)) / 2 / width,
        (target_width / width).log(),
        (targets[..., 0] - proposals[..., 0]) / width,
        (targets[..., 1] - proposals[..., 1]) / width,
    )
    scaled = [move / scale for move, scale in zip(moves, scales.all, strict=True)]
    return torch.stack(scaled, dim=-1)


def decode_offsets(proposals: Tensor, offsets: Tensor, *, scales: OffsetScales) -> Tensor:
    """Segments [..., 2] to which offsets [..., 4] move proposals [..., 2]; not yet clipped."""
    center_move, log_width, start_move, end_move = (
        offset * scale for offset, scale in zip(offsets.unbind(-1), scales.all, strict=True)
    )
    start, end = proposals.unbind(-1)
    width = end - start
    center = (start + end) / 2 + center_move * width
    half = width * log_width.clamp(-MAX_LOG_WIDTH, MAX_LOG_WIDTH).exp() / 2
    by_center = torch.stack((center - half, center + half), dim=-1)
    by_boundaries = torch.stack((start + start_move * width, end + end_move * width), dim=-1)
    return (by_center + by_boundaries) / 2
