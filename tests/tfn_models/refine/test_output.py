import pytest
import torch

from tfn_models.refine.offsets import OffsetScales
from tfn_models.refine.output import RefineOutput, RefineStage


def test_action_score_is_a_probability_or_absent() -> None:
    assert RefineOutput((), None, OffsetScales()).action_score is None
    score = RefineOutput((), torch.zeros(1, 2), OffsetScales()).action_score
    assert score is not None
    assert score.tolist() == [[0.5, 0.5]]


def test_stage_refuses_shapes() -> None:
    segments = torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match=r"offsets must be \[2, 3, 4\]"):
        RefineStage(
            input_segments=segments,
            segments=segments,
            iou=torch.zeros(2, 3),
            offsets=torch.zeros(2, 3, 2),
            positive_iou=0.5,
        )
