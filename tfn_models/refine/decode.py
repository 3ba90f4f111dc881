"""From the output of a Refine Network to refined proposals."""

from dataclasses import dataclass

from torch import Tensor

from tfn_models.refine.output import RefineOutput


@dataclass(frozen=True)
class RefinedProposals:
    """B videos of N refined proposals, in the order of the input proposals."""

    segments: Tensor
    """[B, N, 2] in clips."""
    scores: Tensor
    """[B, N], zero for padding."""


def decode_refined(
    output: RefineOutput, *, proposal_scores: Tensor, proposal_mask: Tensor
) -> RefinedProposals:
    """The last stage's segments, scored by the proposal score times the last stage's IoU.

    The last IoU head judges the segments that the last stage was *given*; the segments returned
    are where that stage moved them. (In TCANet the column called iou3 is the second stage's.)

    Args:
        output: of the network.
        proposal_scores: [B, N] scores of the input proposals.
        proposal_mask: [B, N] bool, True for proposals.

    Raises:
        ValueError: shapes differ.
    """
    last = output.stages[-1]
    for name, value in (("proposal_scores", proposal_scores), ("proposal_mask", proposal_mask)):
        if value.shape != last.iou.shape:
            raise ValueError(f"{name} must be {list(last.iou.shape)}, got {list(value.shape)}")
    scores = proposal_scores * last.iou.detach().float() * proposal_mask
    return RefinedProposals(segments=last.segments, scores=scores)
