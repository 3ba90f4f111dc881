import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor

from tests.tfn_models.nms.loops import (
    BOXES,
    DEVICES,
    EXAMPLES,
    GRID_BOXES,
    QUIRKS,
    SETTINGS,
    TYPES,
    as_tensors,
    check_picks,
    plain_soft_nms,
)
from tfn_models.nms import DETECTION_NMS, RECALL_NMS, Kept, SoftNms, soft_nms

Boxes = list[tuple[list[float], float]]


def check_identical(segments: Tensor, scores: Tensor, settings: SoftNms, length: float) -> Kept:
    """Every index, and every bit of every score."""
    kept = soft_nms(segments, scores, settings=settings, video_length=length)
    indices, expected = plain_soft_nms(segments, scores, settings=settings, video_length=length)
    assert torch.equal(kept.indices, indices)
    assert torch.equal(kept.scores, expected)
    assert kept.scores.dtype == scores.dtype
    return kept


@pytest.mark.parametrize("settings", SETTINGS + QUIRKS)
@EXAMPLES
@given(boxes=BOXES, segments_type=TYPES, scores_type=TYPES)
def test_identical_to_the_plain_loop(
    settings: SoftNms, boxes: Boxes, segments_type: torch.dtype, scores_type: torch.dtype
) -> None:
    """Equal scores and segments, segments without length, denormal and huge scores, N = 0 and 1."""
    segments, scores = as_tensors(boxes, segments_type=segments_type, scores_type=scores_type)
    check_identical(segments, scores, settings, 12.0)


@pytest.mark.parametrize("settings", [DETECTION_NMS, RECALL_NMS, *QUIRKS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_on_the_candidates_of_a_video(settings: SoftNms, dtype: torch.dtype) -> None:
    """All windows of 60 bins, sorted by smooth scores as decoding leaves them, and unsorted."""
    first, last = torch.triu_indices(60, 60).to(dtype)
    segments = torch.stack([first, last + 1], dim=1) / 60 * 73.7
    scores = (1 + torch.sin(first / 7) * torch.cos(last / 5)) / 2
    check_identical(segments, scores, settings, 73.7)
    order = scores.argsort(descending=True, stable=True)
    check_identical(segments[order], scores[order], settings, 73.7)


@pytest.mark.parametrize("settings", SETTINGS + QUIRKS)
@EXAMPLES
@given(boxes=GRID_BOXES)
def test_equals_the_loop_over_single_segments(settings: SoftNms, boxes: Boxes) -> None:
    kept = soft_nms(*as_tensors(boxes), settings=settings, video_length=12.0)
    lost = int(settings.loses_last and len(boxes) > 1)
    assert len(kept.indices) == min(settings.max_outputs, len(boxes) - lost)
    check_picks(kept.indices, kept.scores, boxes=boxes, settings=settings, video_length=12.0)


@EXAMPLES
@given(boxes=GRID_BOXES)
def test_scores_never_rise(boxes: Boxes) -> None:
    """So cutting the result, or picking one more and cutting it, is the same as picking fewer."""
    kept = soft_nms(*as_tensors(boxes), settings=SoftNms(), video_length=12.0)
    assert (kept.scores.diff() <= 0).all()
    fewer = soft_nms(*as_tensors(boxes), settings=SoftNms(max_outputs=3), video_length=12.0)
    assert torch.equal(kept.indices[:3], fewer.indices)


def test_gaussian_by_hand() -> None:
    segments = torch.tensor([[0.0, 4.0], [0.0, 2.0], [6.0, 8.0]], dtype=torch.float64)
    scores = torch.tensor([0.9, 0.8, 0.5], dtype=torch.float64)
    kept = soft_nms(segments, scores, settings=SoftNms(), video_length=8.0)
    decayed = 0.8 * math.exp(-(0.5**2) / 0.4)
    assert kept.indices.tolist() == [0, 2, 1]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5, decayed])


def test_linear_by_hand() -> None:
    """IoU 0.5 halves the score; 0.25 is not above the threshold."""
    segments = torch.tensor([[0.0, 4.0], [0.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    scores = torch.tensor([0.9, 0.8, 0.5], dtype=torch.float64)
    settings = SoftNms(rule="linear", threshold=0.25)
    kept = soft_nms(segments, scores, settings=settings, video_length=8.0)
    assert kept.indices.tolist() == [0, 2, 1]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5, 0.4])
    settings = replace(settings, decays_at_threshold=True)
    kept = soft_nms(segments, scores, settings=settings, video_length=8.0)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.4, 0.375])


def test_threshold_grows_with_the_picked_segment() -> None:
    """IoU 0.6 is above 0.5 + 0.4 * 0.1 but not above 0.5 + 0.4 * 0.5."""
    segments = torch.tensor([[0.0, 5.0], [0.0, 3.0]])
    scores = torch.tensor([0.9, 0.8])
    long = soft_nms(segments, scores, settings=RECALL_NMS, video_length=10.0)
    short = soft_nms(segments, scores, settings=RECALL_NMS, video_length=50.0)
    assert long.scores[1] == scores[1]
    assert short.scores[1] < scores[1]


def test_the_last_one_is_lost_only_on_request_and_of_several() -> None:
    settings = SoftNms(loses_last=True)
    segments, scores = torch.arange(8.0).reshape(4, 2), torch.arange(4.0)
    kept = soft_nms(segments, scores, settings=settings, video_length=8.0)
    assert kept.indices.tolist() == [3, 2, 1]
    alone = soft_nms(segments[:1], scores[:1], settings=settings, video_length=8.0)
    assert alone.indices.tolist() == [0]
    cut = soft_nms(segments, scores, settings=replace(settings, max_outputs=3), video_length=8.0)
    assert torch.equal(cut.indices, kept.indices)


def test_equal_scores_are_picked_by_index() -> None:
    segments = torch.arange(20.0)[:, None] + torch.tensor([0.0, 0.5])
    scores = torch.full((20,), 0.5)
    settings = SoftNms(max_outputs=7)
    kept = soft_nms(segments, scores, settings=settings, video_length=20.0)
    assert kept.indices.tolist() == list(range(7))
    twins = soft_nms(torch.ones(3, 2).cumsum(1), scores[:3], settings=settings, video_length=9.0)
    assert twins.indices.tolist() == [0, 1, 2]


def test_zero_scores_are_kept_but_never_picked_twice() -> None:
    segments, scores = torch.tensor([[0.0, 1.0]]).repeat(4, 1), torch.tensor([0.0, 0.0, 0.5, 0.0])
    kept = soft_nms(segments, scores, settings=SoftNms(sigma=1e-6), video_length=1.0)
    assert kept.indices.tolist() == [2, 0, 1, 3]


def test_inputs_are_left_alone() -> None:
    segments, scores = torch.tensor([[0.0, 1.0], [0.0, 0.9]]), torch.tensor([0.9, 0.8])
    before = segments.clone(), scores.clone()
    kept = soft_nms(
        segments.requires_grad_(), scores.requires_grad_(), settings=SoftNms(), video_length=1.0
    )
    assert torch.equal(segments, before[0]) and torch.equal(scores, before[1])
    assert not kept.scores.requires_grad


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", [DETECTION_NMS, RECALL_NMS])
def test_every_device_gets_what_the_cpu_gets(settings: SoftNms, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    segments = torch.rand(300, 2, generator=generator).sort(dim=1).values
    scores = torch.rand(300, generator=generator)
    expected = soft_nms(segments, scores, settings=settings, video_length=1.0)
    kept = soft_nms(segments.to(device), scores.to(device), settings=settings, video_length=1.0)
    assert kept.indices.device.type == kept.scores.device.type == device
    assert torch.equal(kept.indices.cpu(), expected.indices)
    assert torch.equal(kept.scores.cpu(), expected.scores)


@pytest.mark.parametrize(
    ("segments", "scores", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2), r"got \[3, 2\] and \[2\]"),
        (torch.full((1, 2), math.nan), torch.zeros(1), "must be finite"),
        (torch.zeros(1, 2), torch.tensor([math.inf]), "must be finite"),
        (torch.zeros(1, 2).half(), torch.zeros(1), "fp32 or fp64, got torch.float16"),
        (torch.zeros(1, 2), torch.tensor([-0.5]), "must be 0 or more to decay, got -0.5"),
    ],
)
def test_bad_input_is_refused(segments: Tensor, scores: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_nms(segments, scores, settings=SoftNms(), video_length=1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sigma", 0.0),
        ("iou_power", math.nan),
        ("threshold", -0.1),
        ("threshold_per_width", math.inf),
        ("added_length", -1.0),
        ("max_outputs", 0),
        ("rule", "hard"),
    ],
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .* got {value!r}"):
        SoftNms(**{field: value})


def test_a_video_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="video_length must be positive and finite, got 0"):
        soft_nms(torch.zeros(1, 2), torch.zeros(1), settings=SoftNms(), video_length=0)
