import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.tfn_models.nms.loops import DEVICES, EXAMPLES, GRID_BOXES, TYPES, as_tensors, loop_iou
from tfn_models.nms import hard_nms

Boxes = list[tuple[list[float], float]]


def loop_hard_nms(boxes: Boxes, *, threshold: float, at_it: bool, added_length: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: (-boxes[index][1], index)):
        ious = [loop_iou(boxes[index][0], boxes[one][0], added_length=added_length) for one in kept]
        if not any(iou > threshold or (at_it and iou == threshold) for iou in ious):
            kept.append(index)
    return kept


@EXAMPLES
@given(
    boxes=GRID_BOXES,
    threshold=st.sampled_from([0.25, 0.5, 1.0]),
    limit=st.sampled_from([1, 3, None]),
    at_it=st.booleans(),
    added_length=st.sampled_from([0.0, 0.5]),
    segments_type=TYPES,
)
def test_equals_the_loop(
    boxes: Boxes,
    threshold: float,
    limit: int | None,
    at_it: bool,
    added_length: float,
    segments_type: torch.dtype,
) -> None:
    segments, scores = as_tensors(boxes, segments_type=segments_type)
    kept = hard_nms(
        segments,
        scores,
        iou_threshold=threshold,
        max_outputs=limit,
        drops_at_threshold=at_it,
        added_length=added_length,
    )
    expected = loop_hard_nms(boxes, threshold=threshold, at_it=at_it, added_length=added_length)
    assert kept.indices.tolist() == expected[:limit]
    assert torch.equal(kept.scores, scores[kept.indices])


def test_by_hand() -> None:
    """IoU of the first two is 0.6, of the last two 0.25; the first and the last do not touch."""
    segments = torch.tensor([[0.0, 4.0], [1.0, 5.0], [4.0, 5.0]])
    scores = torch.tensor([0.7, 0.9, 0.8])
    assert hard_nms(segments, scores, iou_threshold=0.5).indices.tolist() == [1, 2]
    assert hard_nms(segments, scores, iou_threshold=0.2).indices.tolist() == [1]
    assert hard_nms(segments, scores, iou_threshold=0.7).indices.tolist() == [1, 2, 0]


def test_an_equal_iou_drops_only_on_request() -> None:
    segments, scores = torch.tensor([[0.0, 4.0], [0.0, 2.0]]), torch.tensor([0.9, 0.8])
    kept = hard_nms(segments, scores, iou_threshold=0.5)
    assert kept.indices.tolist() == [0, 1]
    kept = hard_nms(segments, scores, iou_threshold=0.5, drops_at_threshold=True)
    assert kept.indices.tolist() == [0]


@pytest.mark.parametrize("device", DEVICES)
def test_results_lie_where_the_input_does(device: str) -> None:
    segments = torch.tensor([[0.0, 1.0], [2.0, 3.0]], device=device)
    kept = hard_nms(segments, torch.tensor([1.0, 2.0], device=device), iou_threshold=0.5)
    assert kept.indices.tolist() == [1, 0]
    assert kept.indices.device.type == kept.scores.device.type == device


def test_equal_scores_are_picked_by_index() -> None:
    segments = torch.arange(20.0)[:, None] + torch.tensor([0.0, 0.5])
    kept = hard_nms(segments, torch.full((20,), 0.5), iou_threshold=0.5, max_outputs=7)
    assert kept.indices.tolist() == list(range(7))


def test_negative_scores_are_ranked_too() -> None:
    segments, scores = torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([-2.0, -1.0])
    kept = hard_nms(segments, scores, iou_threshold=0.5)
    assert kept.indices.tolist() == [1, 0]
    assert kept.scores.tolist() == [-1.0, -2.0]


def test_inputs_are_left_alone() -> None:
    segments, scores = torch.tensor([[0.0, 1.0], [0.0, 0.9]]), torch.tensor([0.9, 0.8])
    before = segments.clone(), scores.clone()
    hard_nms(segments, scores, iou_threshold=0.5)
    assert torch.equal(segments, before[0]) and torch.equal(scores, before[1])


@pytest.mark.parametrize(
    ("segments", "scores", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2), r"got \[3, 2\] and \[2\]"),
        (torch.full((1, 2), math.nan), torch.zeros(1), "must be finite"),
        (torch.zeros(1, 2), torch.tensor([math.inf]), "must be finite"),
    ],
)
def test_bad_input_is_refused(segments: Tensor, scores: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hard_nms(segments, scores, iou_threshold=0.5)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"iou_threshold": 1.5}, "iou_threshold must be in 0..1, got 1.5"),
        ({"iou_threshold": 0.5, "max_outputs": 0}, "max_outputs must be at least 1"),
        ({"iou_threshold": 0.5, "added_length": -1.0}, "added_length must be 0 or more"),
    ],
)
def test_bad_choices_are_refused(choice: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hard_nms(torch.zeros(1, 2), torch.zeros(1), **choice)  # type: ignore[arg-type]
