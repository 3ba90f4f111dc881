"""Decoding against loops, and that it is the inverse of the targets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tfn_models.bmn.decode import candidate_boundaries, decode_proposals
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BoundaryMaps, valid_cells


def loop_candidates(values: list[float]) -> list[bool]:
    """Walk left and right over equal values; both must meet a lower one."""
    result = []
    for index, value in enumerate(values):
        left, right = index, index
        while left >= 0 and values[left] == value:
            left -= 1
        while right < len(values) and values[right] == value:
            right += 1
        is_peak = (
            left >= 0 and right < len(values) and values[left] < value and values[right] < value
        )
        result.append(is_peak or value > 0.5 * max(values))
    return result


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5).map(lambda n: n / 5), min_size=1, max_size=12))
def test_candidates_equal_loops(values: list[float]) -> None:
    got = candidate_boundaries(torch.tensor(values, dtype=torch.float64))
    assert got.tolist() == loop_candidates(values)


def test_plateaus_are_kept() -> None:
    """Peers ask for a bin above both neighbours, and lose peaks two bins wide."""
    values = torch.tensor([0.9, 0.1, 0.3, 0.3, 0.2, 0.1])
    assert candidate_boundaries(values).tolist() == [True, False, True, True, False, False]


def random_maps(num_bins: int, seed: int) -> BoundaryMaps:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, 1, num_bins, generator=generator)
    cells = torch.rand(2, 1, num_bins, num_bins, generator=generator) * valid_cells(num_bins)
    return BoundaryMaps(rows[0] ** 3, rows[1] ** 3, cells[0], cells[1])


@pytest.mark.parametrize("scoring", ["detection", "recall"])
@pytest.mark.parametrize(("num_bins", "seed"), [(1, 0), (2, 1), (9, 2), (30, 3)])
def test_equals_loops(scoring: str, num_bins: int, seed: int) -> None:
    maps = random_maps(num_bins, seed)
    start, end = maps.start[0].tolist(), maps.end[0].tolist()
    is_start, is_end = loop_candidates(start), loop_candidates(end)
    is_start[0], is_end[-1] = True, True
    expected = []
    for first in range(num_bins):
        for last in range(first, num_bins):
            if not (is_start[first] and is_end[last]):
                continue
            low, high = first / num_bins * 20.0, min((last + 1) / num_bins * 20.0, 18.0)
            score = maps.regression[0, last - first, first].item()
            confidence = maps.classification[0, last - first, first].item()
            if scoring == "detection":
                score *= confidence**1.2
            else:
                score *= confidence * start[first] * end[last]
            if high > low:
                expected.append((-score, first, last, low, high))
    expected.sort()
    decoded = decode_proposals(
        maps,
        scoring=scoring,
        extent_seconds=20.0,
        video_seconds=18.0,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(
        decoded.scores, torch.tensor([-e[0] for e in expected], dtype=torch.float64)
    )
    torch.testing.assert_close(
        decoded.segments, torch.tensor([e[3:] for e in expected], dtype=torch.float64)
    )


@pytest.mark.parametrize("action", [(0.2, 0.5), (0.0, 0.1), (0.7, 1.0), (0.0, 1.0)])
def test_decoding_perfect_maps_gives_the_action_back(action: tuple[float, float]) -> None:
    """The same convention on both sides, also for an action that ends with the video."""
    targets = bmn_targets([torch.tensor([action])], num_bins=20)
    maps = BoundaryMaps(targets.start, targets.end, targets.iou, targets.iou)
    decoded = decode_proposals(maps, scoring="detection", extent_seconds=40.0, video_seconds=40.0)
    assert decoded.scores[0].item() == pytest.approx(1)
    assert decoded.segments[0].tolist() == pytest.approx([action[0] * 40, action[1] * 40])


def test_proposals_beyond_the_video_are_left_out() -> None:
    maps = random_maps(8, 0)
    decoded = decode_proposals(maps, scoring="recall", extent_seconds=8.0, video_seconds=3.0)
    assert (decoded.segments[:, 1] <= 3).all()
    assert (decoded.segments[:, 0] < decoded.segments[:, 1]).all()


def test_refuses_wrong_input() -> None:
    maps = random_maps(4, 0)
    with pytest.raises(ValueError, match="'detection' or 'recall', got 'best'"):
        decode_proposals(maps, scoring="best", extent_seconds=1, video_seconds=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be positive, got 0 and 1"):
        decode_proposals(maps, scoring="recall", extent_seconds=0, video_seconds=1)
    two = maps.select(torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="one video, got 2"):
        decode_proposals(two, scoring="recall", extent_seconds=1, video_seconds=1)
