import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tfn_models.nms.loops import EXAMPLES, GRID_BOXES, as_tensors, loop_iou
from tfn_models.nms import SoftNms, soft_nms, vote_segments

Boxes = list[tuple[list[float], float]]


@EXAMPLES
@given(kept=GRID_BOXES, boxes=GRID_BOXES, threshold=st.sampled_from([0.25, 0.5, 1.0]))
def test_equals_the_loop(kept: Boxes, boxes: Boxes, threshold: float) -> None:
    expected = []
    for segment, _ in kept:
        total, weighted = 0.0, [0.0, 0.0]
        for other, score in boxes:
            if loop_iou(segment, other) >= threshold:
                total += score
                weighted = [
                    sum_ + score * bound for sum_, bound in zip(weighted, other, strict=True)
                ]
        expected.append([sum_ / total for sum_ in weighted] if total > 0 else segment)
    segments, scores = as_tensors(boxes)
    voted = vote_segments(
        as_tensors(kept)[0], segments=segments, scores=scores, iou_threshold=threshold
    )
    torch.testing.assert_close(
        voted, torch.tensor(expected, dtype=torch.float64).reshape(-1, 2), rtol=1e-12, atol=1e-12
    )


def test_by_hand() -> None:
    """[0, 4] and [0, 2] overlap by 0.5 and vote with 0.6 and 0.2; [3, 4] overlaps by 0.25 only."""
    segments = torch.tensor([[0.0, 4.0], [0.0, 2.0], [3.0, 4.0]])
    scores = torch.tensor([0.6, 0.2, 0.1])
    voted = vote_segments(segments[:1], segments=segments, scores=scores, iou_threshold=0.5)
    assert voted.dtype == torch.float32
    assert voted.tolist() == [[0.0, pytest.approx((0.6 * 4 + 0.2 * 2) / 0.8)]]


def test_what_was_kept_votes_with_its_score_from_before() -> None:
    """As it is meant to be used: pick by lowered scores, vote with those that came in."""
    segments = torch.tensor([[0.0, 4.0], [0.0, 3.0], [6.0, 8.0]])
    scores = torch.tensor([0.9, 0.8, 0.5])
    kept = soft_nms(segments, scores, settings=SoftNms(max_outputs=2), video_length=8.0)
    voted = vote_segments(
        segments[kept.indices], segments=segments, scores=scores, iou_threshold=0.7
    )
    assert voted[0].tolist() == [0.0, pytest.approx((0.9 * 4 + 0.8 * 3) / 1.7)]
    assert voted[1].tolist() == [6.0, 8.0]


def test_a_segment_without_votes_stays() -> None:
    segments = torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    voted = vote_segments(
        segments, segments=segments, scores=torch.tensor([0.0, 1.0]), iou_threshold=0.5
    )
    assert torch.equal(voted, segments)


@pytest.mark.parametrize(
    ("kept", "score", "threshold", "message"),
    [
        (torch.zeros(2), 1.0, 0.5, r"kept must be finite \[n, 2\], got \[2\]"),
        (torch.full((1, 2), torch.nan), 1.0, 0.5, "kept must be finite"),
        (torch.zeros(1, 2), -1.0, 0.5, "must be 0 or more to be weights, got -1.0"),
        (torch.zeros(1, 2), 1.0, 0.0, "must be above 0 and at most 1, got 0.0"),
    ],
)
def test_bad_input_is_refused(
    kept: torch.Tensor, score: float, threshold: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        vote_segments(
            kept,
            segments=torch.zeros(1, 2),
            scores=torch.tensor([score]),
            iou_threshold=threshold,
        )
