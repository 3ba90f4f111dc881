import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tfn_models.nms.loops import BOXES, EXAMPLES, TYPES, as_tensors
from tfn_models.nms.candidates import Candidates
from tfn_models.segments import pairwise_iou

Boxes = list[tuple[list[float], float]]
THRESHOLDS = st.sampled_from([0.0, 1e-12, 0.1, 0.25, 0.5, 2 / 3, 0.9, 1.0, 1.3]) | st.floats(0, 1)
# Lengths of a few units in the last place, where bounds are rounded by as much as they differ.
HAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 1e6, 3e38]), st.integers(0, 6), st.integers(0, 6)),
    min_size=1,
    max_size=20,
)


def check_all(segments: torch.Tensor, *, threshold: float, at_threshold: bool) -> None:
    candidates = Candidates(segments, added_length=0.0)
    for index in range(len(segments)):
        iou = pairwise_iou(segments, segments[index][None])[:, 0]
        exceeds = (iou >= threshold) & (iou > 0) if at_threshold else iou > threshold
        indices, found = candidates.overlapping(
            index, threshold=threshold, at_threshold=at_threshold
        )
        assert torch.equal(torch.from_numpy(indices), exceeds.nonzero()[:, 0])
        assert torch.equal(found, iou[exceeds])


@EXAMPLES
@given(boxes=BOXES.filter(len), dtype=TYPES, threshold=THRESHOLDS, at_threshold=st.booleans())
def test_equals_pairwise_iou_to_the_last_bit(
    boxes: Boxes, dtype: torch.dtype, threshold: float, at_threshold: bool
) -> None:
    segments, _ = as_tensors(boxes, segments_type=dtype)
    check_all(segments, threshold=threshold, at_threshold=at_threshold)


@EXAMPLES
@given(hairs=HAIRS, dtype=TYPES, threshold=THRESHOLDS, at_threshold=st.booleans())
def test_no_overlap_of_hairs_is_missed(
    hairs: list[tuple[float, int, int]], dtype: torch.dtype, threshold: float, at_threshold: bool
) -> None:
    """Segments of denormal length around 0, and of a few ulps elsewhere."""
    number = np.float32 if dtype == torch.float32 else np.float64
    segments = []
    for origin, begin, length in hairs:
        step = np.spacing(number(origin))
        start = number(origin) + number(begin) * step
        segments.append([start, start + number(length) * step])
    check_all(torch.tensor(np.array(segments)), threshold=threshold, at_threshold=at_threshold)


@EXAMPLES
@given(boxes=BOXES.filter(len), threshold=THRESHOLDS)
def test_reversed_segments_overlap_nothing(boxes: Boxes, threshold: float) -> None:
    segments, _ = as_tensors(boxes)
    check_all(torch.cat([segments, segments.flip(1)]), threshold=threshold, at_threshold=False)


@pytest.mark.parametrize(("threshold", "found"), [(0.0, [0, 1]), (0.3, [0])])
def test_added_length_by_hand(threshold: float, found: list[int]) -> None:
    candidates = Candidates(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), added_length=1.0)
    ious = [2 / (3 + 3 - 2), 1 / (3 + 3 - 1)]
    indices, iou = candidates.overlapping(0, threshold=threshold, at_threshold=False)
    assert indices.tolist() == found
    assert iou.tolist() == pytest.approx([ious[index] for index in found])


def test_what_is_taken_out_overlaps_nothing() -> None:
    candidates = Candidates(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), added_length=0.0)
    candidates.take_out(0)
    indices, _ = candidates.overlapping(1, threshold=0.0, at_threshold=True)
    assert indices.tolist() == [1]
