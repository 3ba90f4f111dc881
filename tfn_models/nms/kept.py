"""What suppression takes and what it leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """What is left of N segments: `indices` [n] int64 into them and `scores` [n], best first."""

    indices: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        """Refuse fields that do not belong together."""
        if self.indices.ndim != 1 or self.indices.shape != self.scores.shape:
            raise ValueError(
                "indices and scores must both be [n], got "
                f"{list(self.indices.shape)} and {list(self.scores.shape)}"
            )
        if self.indices.dtype != torch.int64:
            raise ValueError(f"indices must be int64, got {self.indices.dtype}")


def check_scored(segments: Tensor, scores: Tensor) -> None:
    """Refuse anything but finite fp32 or fp64 `segments` [N, 2] and `scores` [N]."""
    if segments.shape != (*scores.shape, 2) or scores.ndim != 1:
        raise ValueError(
            "segments must be [N, 2] and scores [N], got "
            f"{list(segments.shape)} and {list(scores.shape)}"
        )
    if not {segments.dtype, scores.dtype} <= {torch.float32, torch.float64}:
        raise ValueError(
            f"segments and scores must be fp32 or fp64, got {segments.dtype} and {scores.dtype}"
        )
    if not (bool(segments.isfinite().all()) and bool(scores.isfinite().all())):
        raise ValueError(
            "segments and scores must be finite; drop or repair NaN and infinity first"
        )
