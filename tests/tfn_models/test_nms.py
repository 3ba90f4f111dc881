import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.nms import DETECTION_NMS, RECALL_NMS, Kept, SoftNms, hard_nms, soft_nms

Boxes = list[tuple[list[int], int]]
BOX = st.tuples(st.lists(st.integers(0, 12), min_size=2, max_size=2).map(sorted), st.integers(0, 5))
BOXES = st.lists(BOX, max_size=14)
SETTINGS = [DETECTION_NMS, RECALL_NMS, SoftNms(threshold=0.3), SoftNms(max_outputs=3, sigma=0.9)]


def as_tensors(boxes: Boxes) -> tuple[Tensor, Tensor]:
    segments = torch.tensor([box for box, _ in boxes], dtype=torch.float64).reshape(-1, 2)
    return segments, torch.tensor([score / 5 for _, score in boxes], dtype=torch.float64)


def slow_iou(first: list[float], second: list[float]) -> float:
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = first[1] - first[0] + second[1] - second[0] - shared
    return shared / union if union > 0 else 0.0


def check_soft(segments: Tensor, scores: Tensor, *, settings: SoftNms, video_length: float) -> Kept:
    """Replay the picks one by one: each must be the best left, and have the score left to it."""
    kept = soft_nms(segments, scores, settings=settings, video_length=video_length)
    boxes, left = segments.tolist(), dict(enumerate(scores.tolist()))
    assert len(kept.indices) == min(settings.max_outputs, len(boxes))
    for picked, score in zip(kept.indices.tolist(), kept.scores.tolist(), strict=True):
        assert score == pytest.approx(left[picked], rel=1e-12)
        # A hair below the best: powers differ in the last bit between one and many numbers.
        assert left[picked] >= max(left.values()) * (1 - 1e-12)
        del left[picked]
        width = (boxes[picked][1] - boxes[picked][0]) / video_length
        for index in left:
            iou = slow_iou(boxes[picked], boxes[index])
            if iou > settings.threshold + settings.threshold_per_width * width:
                left[index] *= math.exp(-(iou**settings.iou_power) / settings.sigma)
    return kept


@pytest.mark.parametrize("settings", SETTINGS)
@given(boxes=BOXES)
def test_soft_nms_equals_the_loop(settings: SoftNms, boxes: Boxes) -> None:
    segments, scores = as_tensors(boxes)
    check_soft(segments, scores, settings=settings, video_length=12.0)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_soft_nms_equals_the_loop_on_many_segments(settings: SoftNms, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    segments = torch.rand(300, 2, dtype=torch.float64, generator=generator).sort(dim=1).values
    scores = torch.rand(300, dtype=torch.float64, generator=generator)
    check_soft(segments, scores, settings=settings, video_length=1.0)


def test_soft_nms_by_hand() -> None:
    segments = torch.tensor([[0.0, 4.0], [0.0, 2.0], [6.0, 8.0]], dtype=torch.float64)
    scores = torch.tensor([0.9, 0.8, 0.5], dtype=torch.float64)
    kept = soft_nms(segments, scores, settings=SoftNms(), video_length=8.0)
    decayed = 0.8 * math.exp(-(0.5**2) / 0.4)
    assert kept.indices.tolist() == [0, 2, 1]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5, decayed])


def test_soft_nms_threshold_grows_with_the_picked_segment() -> None:
    """IoU 0.6 is above 0.5 + 0.4 * 0.1 but not above 0.5 + 0.4 * 0.5."""
    segments = torch.tensor([[0.0, 5.0], [0.0, 3.0]])
    scores = torch.tensor([0.9, 0.8])
    long = soft_nms(segments, scores, settings=RECALL_NMS, video_length=10.0)
    short = soft_nms(segments, scores, settings=RECALL_NMS, video_length=50.0)
    assert long.scores[1] == scores[1]
    assert short.scores[1] < scores[1]


def test_equal_scores_are_picked_by_index() -> None:
    segments = torch.arange(20.0)[:, None] + torch.tensor([0.0, 0.5])
    scores = torch.full((20,), 0.5)
    settings = SoftNms(max_outputs=7)
    soft = soft_nms(segments, scores, settings=settings, video_length=20.0)
    hard = hard_nms(segments, scores, iou_threshold=0.5, max_outputs=7)
    assert soft.indices.tolist() == hard.indices.tolist() == list(range(7))
    twins = soft_nms(torch.ones(3, 2).cumsum(1), scores[:3], settings=settings, video_length=9.0)
    assert twins.indices.tolist() == [0, 1, 2]


def test_zero_scores_are_kept_but_never_picked_twice() -> None:
    segments, scores = torch.tensor([[0.0, 1.0]]).repeat(4, 1), torch.tensor([0.0, 0.0, 0.5, 0.0])
    kept = soft_nms(segments, scores, settings=SoftNms(sigma=1e-6), video_length=1.0)
    assert kept.indices.tolist() == [2, 0, 1, 3]


@given(
    boxes=BOXES, threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]), limit=st.sampled_from([1, None])
)
def test_hard_nms_equals_the_loop(boxes: Boxes, threshold: float, limit: int | None) -> None:
    segments, scores = as_tensors(boxes)
    expected: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: (-boxes[index][1], index)):
        if all(slow_iou(boxes[index][0], boxes[one][0]) <= threshold for one in expected):
            expected.append(index)
    kept = hard_nms(segments, scores, iou_threshold=threshold, max_outputs=limit)
    assert kept.indices.tolist() == expected[:limit]
    assert torch.equal(kept.scores, scores[kept.indices])


def test_inputs_are_left_alone() -> None:
    segments, scores = torch.tensor([[0.0, 1.0], [0.0, 0.9]]), torch.tensor([0.9, 0.8])
    before = segments.clone(), scores.clone()
    soft_nms(segments, scores, settings=SoftNms(), video_length=1.0)
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
        soft_nms(segments, scores, settings=SoftNms(), video_length=1.0)
    with pytest.raises(ValueError, match=message):
        hard_nms(segments, scores, iou_threshold=0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sigma", 0.0),
        ("iou_power", math.nan),
        ("threshold", -0.1),
        ("threshold_per_width", math.inf),
        ("max_outputs", 0),
    ],
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        SoftNms(**{field: value})


def test_scores_that_could_not_decay_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 0 or more to decay, got -0.5"):
        soft_nms(torch.zeros(1, 2), torch.tensor([-0.5]), settings=SoftNms(), video_length=1.0)


def test_bad_limits_are_refused() -> None:
    segments, scores = torch.zeros(1, 2), torch.zeros(1)
    with pytest.raises(ValueError, match="video_length must be positive and finite, got 0"):
        soft_nms(segments, scores, settings=SoftNms(), video_length=0)
    with pytest.raises(ValueError, match="iou_threshold must be in 0..1, got 1.5"):
        hard_nms(segments, scores, iou_threshold=1.5)
    with pytest.raises(ValueError, match="max_outputs must be at least 1"):
        hard_nms(segments, scores, iou_threshold=0.5, max_outputs=0)
    with pytest.raises(ValueError, match="must both be"):
        Kept(indices=torch.zeros(2, dtype=torch.int64), scores=torch.zeros(3))
