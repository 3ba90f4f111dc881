from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.segments import clip_segments, intersection_over_segment, pairwise_iou

TICKS = st.integers(min_value=0, max_value=8)
SEGMENTS = st.lists(st.tuples(TICKS, TICKS).map(sorted), min_size=0, max_size=6)
TIMES = st.floats(-1e4, 1e4, allow_subnormal=False)
PAIRS = st.lists(st.tuples(TIMES, TIMES).map(sorted), min_size=1, max_size=5)


def as_segments(rows: list[list[int]] | list[list[float]]) -> Tensor:
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


def exact_overlap(first: list[float], second: list[float]) -> Fraction:
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return max(Fraction(high) - Fraction(low), Fraction(0))


@given(PAIRS, PAIRS)
def test_equals_exact_arithmetic(first: list[list[float]], second: list[list[float]]) -> None:
    """To a few roundings of the lengths, which a union loses where segments are very short."""
    iou = pairwise_iou(as_segments(first), as_segments(second))
    share = intersection_over_segment(as_segments(first), as_segments(second))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            overlap = exact_overlap(one, other)
            length = Fraction(one[1]) - Fraction(one[0])
            union = length + Fraction(other[1]) - Fraction(other[0]) - overlap
            assert iou[row, column].item() == pytest.approx(ratio(overlap, union), abs=1e-14)
            assert share[row, column].item() == pytest.approx(ratio(overlap, length), abs=1e-14)


def ratio(part: Fraction, whole: Fraction) -> float:
    return float(part / whole) if whole else 0.0


@given(PAIRS, PAIRS)
def test_iou_is_a_share_and_does_not_know_which_came_first(
    first: list[list[float]], second: list[list[float]]
) -> None:
    iou = pairwise_iou(as_segments(first), as_segments(second))
    assert ((iou >= 0) & (iou <= 1)).all()
    assert torch.equal(iou, pairwise_iou(as_segments(second), as_segments(first)).T)
    with_itself = pairwise_iou(as_segments(first), as_segments(first)).diagonal()
    assert with_itself.tolist() == [float(start < end) for start, end in first]


@given(SEGMENTS, SEGMENTS, st.integers(-(2**20), 2**20), st.integers(-8, 8))
def test_neither_the_origin_nor_the_unit_of_time_matters(
    first: list[list[int]], second: list[list[int]], shift: int, power: int
) -> None:
    """Whole ticks and powers of two are exact, so not a bit may change."""
    one, other = as_segments(first), as_segments(second)
    moved = [(segments + shift) * 2.0**power for segments in (one, other)]
    assert torch.equal(pairwise_iou(*moved), pairwise_iou(one, other))
    assert torch.equal(intersection_over_segment(*moved), intersection_over_segment(one, other))


@given(SEGMENTS, SEGMENTS)
def test_iou_is_at_most_what_is_covered_of_either(
    first: list[list[int]], second: list[list[int]]
) -> None:
    one, other = as_segments(first), as_segments(second)
    iou = pairwise_iou(one, other)
    assert (iou <= intersection_over_segment(one, other)).all()
    assert (iou <= intersection_over_segment(other, one).T).all()


def test_iou_by_hand_and_in_batches() -> None:
    segments = torch.tensor([[[0.0, 2.0]], [[1.0, 2.0]]])
    others = torch.tensor([[[1.0, 3.0]], [[5.0, 6.0]]])
    torch.testing.assert_close(pairwise_iou(segments, others), torch.tensor([[[1 / 3]], [[0.0]]]))


def test_gradients_are_right_and_finite_without_any_length() -> None:
    segments = torch.tensor([[0.0, 2.0], [0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    others = torch.tensor([[1.1, 3.0], [0.2, 0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise_iou, (segments, others))
    assert torch.autograd.gradcheck(intersection_over_segment, (segments, others))

    for function in (pairwise_iou, intersection_over_segment):
        point = torch.tensor([[1.0, 1.0]], requires_grad=True)
        function(point, point.detach()).sum().backward()
        assert point.grad is not None and point.grad.isfinite().all()


@given(PAIRS, TIMES, st.floats(0, 1e4))
def test_clipping_keeps_what_lies_inside(rows: list[list[float]], low: float, width: float) -> None:
    high = low + width
    clipped = clip_segments(as_segments(rows), low=low, high=high)
    for (start, end), (first, last) in zip(clipped.tolist(), rows, strict=True):
        assert low <= start <= end <= high
        assert Fraction(end) - Fraction(start) == exact_overlap([first, last], [low, high])


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
