import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.segments import clip_segments, intersection_over_segment, pairwise_iou

TICKS = st.integers(min_value=0, max_value=8)
SEGMENTS = st.lists(st.tuples(TICKS, TICKS).map(sorted), min_size=0, max_size=6)


def as_segments(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)


def shared_ticks(first: list[int], second: list[int]) -> int:
    return len(set(range(*first)) & set(range(*second)))


@given(SEGMENTS, SEGMENTS)
def test_iou_counts_shared_ticks(first: list[list[int]], second: list[list[int]]) -> None:
    iou = pairwise_iou(as_segments(first), as_segments(second))
    assert iou.shape == (len(first), len(second))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            union = len(set(range(*one)) | set(range(*other)))
            expected = shared_ticks(one, other) / union if union else 0.0
            assert iou[row, column] == pytest.approx(expected, abs=1e-15)


@given(SEGMENTS, SEGMENTS)
def test_intersection_over_segment_counts_shared_ticks(
    first: list[list[int]], second: list[list[int]]
) -> None:
    share = intersection_over_segment(as_segments(first), as_segments(second))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            length = one[1] - one[0]
            expected = shared_ticks(one, other) / length if length else 0.0
            assert share[row, column] == pytest.approx(expected, abs=1e-15)


def test_iou_by_hand_and_in_batches() -> None:
    segments = torch.tensor([[[0.0, 2.0]], [[1.0, 2.0]]])
    others = torch.tensor([[[1.0, 3.0]], [[5.0, 6.0]]])
    torch.testing.assert_close(pairwise_iou(segments, others), torch.tensor([[[1 / 3]], [[0.0]]]))


def test_iou_gradients_are_right_and_finite_without_any_length() -> None:
    segments = torch.tensor([[0.0, 2.0], [0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    others = torch.tensor([[1.1, 3.0], [0.2, 0.7]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pairwise_iou(x, others), segments)

    point = torch.tensor([[1.0, 1.0]], requires_grad=True)
    pairwise_iou(point, point.detach()).sum().backward()
    assert point.grad is not None and point.grad.isfinite().all()


def test_clip_segments() -> None:
    clipped = clip_segments(torch.tensor([[-1.0, 0.5], [2.0, 9.0]]), low=0.0, high=3.0)
    assert clipped.tolist() == [[0.0, 0.5], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (torch.zeros(3), r"\(start, end\), got shape \[3\]"),
        (torch.zeros(3, 2, dtype=torch.int64), "floating point, got torch.int64"),
    ],
)
def test_bad_segments_are_refused(segments: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairwise_iou(segments, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=message):
        clip_segments(segments, low=0.0, high=1.0)


def test_clip_segments_refuses_reversed_bounds() -> None:
    with pytest.raises(ValueError, match="low=2 and high=1"):
        clip_segments(torch.zeros(1, 2), low=2, high=1)
