"""Proposals of one video as tensors, and of many as a PROPOSALS table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tfn_platform.tables import PROPOSALS

FUSED, MEAN = "fused", "mean"
"""The `member` of what learned weights fuse, and of what the plain mean does."""


def ranked_for(name: str, scoring: str) -> str:
    """The `member` of proposals of `name` that are ranked for "detection" or for "recall"."""
    return f"{name}:{scoring}"


@dataclass(frozen=True)
class VideoProposals:
    """Proposals of one video: segments [N, 2] float64 in seconds and scores [N] float64."""

    segments: torch.Tensor
    scores: torch.Tensor

    def __post_init__(self) -> None:
        """Check that there is a score for each segment."""
        if self.segments.shape != (len(self.scores), 2):
            raise ValueError(f"got segments {self.segments.shape}, scores {self.scores.shape}")


def proposal_rows(by_member: Mapping[str, Mapping[str, VideoProposals]]) -> pa.Table:
    """Member -> video_id -> proposals as a table; the rank is the position within the video."""
    pieces = [
        (member, video_id, proposals)
        for member, videos in by_member.items()
        for video_id, proposals in videos.items()
    ]
    counts = [len(proposals.scores) for _, _, proposals in pieces]
    empty = torch.empty(0, 2, dtype=torch.float64)
    segments = torch.cat([empty, *(p.segments.double() for _, _, p in pieces)]).numpy()
    scores = torch.cat([empty[:, 0], *(p.scores.double() for _, _, p in pieces)]).numpy()
    columns = {
        "video_id": _repeat([video_id for _, video_id, _ in pieces], counts),
        "member": _repeat([member for member, _, _ in pieces], counts),
        "rank": [rank for count in counts for rank in range(count)],
        "start_seconds": segments[:, 0],
        "end_seconds": segments[:, 1],
        "score": scores,
    }
    return pa.table(columns, schema=PROPOSALS.schema)


def proposals_of(table: pa.Table, member: str) -> dict[str, VideoProposals]:
    """Read one member's proposals back, by video_id, in the order of their ranks."""
    chosen = table.filter(pc.equal(table["member"], member))
    chosen = chosen.sort_by([("video_id", "ascending"), ("rank", "ascending")])
    names = np.array(chosen["video_id"].to_pylist(), dtype=object)
    columns = [chosen[c].to_numpy() for c in ("start_seconds", "end_seconds", "score")]
    values = torch.from_numpy(np.stack(columns, axis=1))
    unique, first = np.unique(names.astype(str), return_index=True)
    ends = [*first, len(names)][1:]
    return {
        # Copies: a pickled view would carry the values of all videos.
        str(name): VideoProposals(values[begin:end, :2].clone(), values[begin:end, 2].clone())
        for name, begin, end in zip(unique, first, ends, strict=True)
    }


def _repeat(names: list[str], counts: list[int]) -> list[str]:
    return [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
