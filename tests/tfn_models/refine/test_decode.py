import pytest
import torch

from tfn_models.refine.decode import decode_refined
from tfn_models.refine.offsets import OffsetScales
from tfn_models.refine.output import RefineOutput, RefineStage


def make_output() -> RefineOutput:
    stages = tuple(
        RefineStage(
            input_segments=torch.full((1, 3, 2), float(order)),
            segments=torch.full((1, 3, 2), float(order + 1)),
            iou=torch.tensor([[0.1, 0.2, 0.4]]) * (order + 1),
            offsets=torch.zeros(1, 3, 4),
            positive_iou=0.5,
        )
        for order in range(2)
    )
    return RefineOutput(stages, None, OffsetScales())


def test_only_the_last_stage_counts_and_padding_scores_zero() -> None:
    refined = decode_refined(
        make_output(),
        proposal_scores=torch.tensor([[0.5, 1.0, 1.0]]),
        proposal_mask=torch.tensor([[True, True, False]]),
    )
    assert torch.equal(refined.segments, torch.full((1, 3, 2), 2.0))
    torch.testing.assert_close(refined.scores, torch.tensor([[0.1, 0.4, 0.0]]))


def test_refuses_scores_of_other_proposals() -> None:
    with pytest.raises(ValueError, match=r"proposal_scores must be \[1, 3\]"):
        decode_refined(
            make_output(),
            proposal_scores=torch.ones(1, 2),
            proposal_mask=torch.ones(1, 3, dtype=torch.bool),
        )
