"""Decoding against loops, and that it is the inverse of the targets."""

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.bmn.decode import (
    Candidates,
    DecodedProposals,
    Scoring,
    candidate_boundaries,
    decode_batch,
    decode_proposals,
)
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BoundaryMaps, valid_cells

SCORINGS: tuple[Scoring, ...] = get_args(Scoring)
CANDIDATES: tuple[Candidates, ...] = get_args(Candidates)
LEVELS = st.integers(0, 5).map(lambda n: n / 5)


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
@given(st.lists(LEVELS, min_size=1, max_size=12), st.permutations(range(3)))
def test_candidates_equal_loops(values: list[float], order: list[int]) -> None:
    """Of several videos at once, too: each has its own runs, edges and maximum."""
    rows = [values, values[::-1], [value / 2 for value in values]]
    got = candidate_boundaries(torch.tensor([rows[row] for row in order], dtype=torch.float64))
    assert got.tolist() == [loop_candidates(rows[row]) for row in order]


def test_plateaus_are_kept() -> None:
    """Peers ask for a bin above both neighbours."""
    values = torch.tensor([0.9, 0.1, 0.3, 0.3, 0.2, 0.1])
    assert candidate_boundaries(values).tolist() == [True, False, True, True, False, False]


def random_maps(num_bins: int, seed: int, *, num_videos: int = 1, levels: int = 0) -> BoundaryMaps:
    """Maps of random values, or of few `levels`, so that scores tie and runs are equal."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, num_videos, num_bins, generator=generator)
    cells = torch.rand(2, num_videos, num_bins, num_bins, generator=generator)
    if levels:
        rows, cells = (rows * levels).round() / levels, (cells * levels).round() / levels
    cells = cells * valid_cells(num_bins)
    return BoundaryMaps(rows[0] ** 3, rows[1] ** 3, cells[0], cells[1])


def loop_proposals(
    maps: BoundaryMaps,
    *,
    scoring: str,
    candidates: str,
    extent_seconds: float,
    video_seconds: float,
    ends_one_bin_later: bool,
) -> list[tuple[float, float, float]]:
    """Score, start and end of every window of one video, best first."""
    num_bins = maps.num_bins
    start, end = maps.start[0].tolist(), maps.end[0].tolist()
    is_start, is_end = loop_candidates(start), loop_candidates(end)
    is_start[0], is_end[-1] = True, True
    found = []
    for first in range(num_bins):
        for last in range(first, num_bins):
            end_bin = last + 1 if ends_one_bin_later else last
            if end_bin == num_bins:
                continue
            if candidates == "peaks" and not (is_start[first] and is_end[end_bin]):
                continue
            low = min(first / num_bins * extent_seconds, video_seconds)
            high = min((last + 1) / num_bins * extent_seconds, video_seconds)
            score = maps.regression[0, last - first, first].item()
            confidence = maps.classification[0, last - first, first].item()
            if scoring == "detection":
                score *= confidence**1.2
            else:
                score *= confidence * start[first] * end[end_bin]
            if high > low:
                found.append((-score, first, last, low, high))
    return [(-score, low, high) for score, _, _, low, high in sorted(found)]


@pytest.mark.parametrize("ends_one_bin_later", [False, True])
@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(("num_bins", "seed"), [(1, 0), (2, 1), (9, 2), (30, 3)])
def test_equals_loops(
    scoring: Scoring, candidates: Candidates, num_bins: int, seed: int, ends_one_bin_later: bool
) -> None:
    maps = random_maps(num_bins, seed)
    expected = loop_proposals(
        maps,
        scoring=scoring,
        candidates=candidates,
        extent_seconds=20.0,
        video_seconds=18.0,
        ends_one_bin_later=ends_one_bin_later,
    )
    decoded = decode_proposals(
        maps,
        scoring=scoring,
        candidates=candidates,
        extent_seconds=20.0,
        video_seconds=18.0,
        ends_one_bin_later=ends_one_bin_later,
    )
    rows = torch.tensor(expected, dtype=torch.float64).reshape(-1, 3)
    torch.testing.assert_close(decoded.scores, rows[:, 0])
    torch.testing.assert_close(decoded.segments, rows[:, 1:])


def pairwise_decode(
    maps: BoundaryMaps,
    *,
    scoring: Scoring,
    candidates: Candidates,
    extent_seconds: float,
    video_seconds: float,
) -> tuple[Tensor, Tensor]:
    """One video on its own, in the same expressions, which give the same bits."""
    start, end = maps.start[0].double(), maps.end[0].double()
    is_start = is_end = torch.ones_like(start, dtype=torch.bool)
    if candidates == "peaks":
        is_start, is_end = (torch.tensor(loop_candidates(p.tolist())) for p in (start, end))
        is_start[0], is_end[-1] = True, True
    pairs = torch.cartesian_prod(is_start.nonzero().squeeze(1), is_end.nonzero().squeeze(1))
    first, last = pairs[pairs[:, 0] <= pairs[:, 1]].unbind(1)
    classification = maps.classification[0, last - first, first].double()
    scores = maps.regression[0, last - first, first].double()
    if scoring == "detection":
        scores = scores * classification**1.2
    else:
        scores = scores * classification * start[first] * end[last]
    bounds = torch.stack([first, last + 1], dim=1).double() / maps.num_bins * extent_seconds
    segments = bounds.clamp(max=video_seconds)
    remains = segments[:, 1] > segments[:, 0]
    segments, scores = segments[remains], scores[remains]
    best_first = scores.argsort(descending=True, stable=True)
    return segments[best_first], scores[best_first]


@settings(max_examples=60, deadline=None)
@given(
    num_bins=st.integers(1, 24),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([0, 1, 4]),
    scoring=st.sampled_from(SCORINGS),
    candidates=st.sampled_from(CANDIDATES),
    spans=st.lists(st.tuples(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4)), min_size=1, max_size=5),
)
def test_a_batch_is_identical_to_its_videos(
    num_bins: int,
    seed: int,
    levels: int,
    scoring: Scoring,
    candidates: Candidates,
    spans: list[tuple[float, float]],
) -> None:
    """To the last bit, with equal scores, and videos that end long before their bins."""
    maps = random_maps(num_bins, seed, num_videos=len(spans), levels=levels)
    batch = decode_batch(
        maps,
        scoring=scoring,
        candidates=candidates,
        extent_seconds=[extent for extent, _ in spans],
        video_seconds=[length for _, length in spans],
    )
    assert len(batch) == len(spans)
    for video, ((extent, length), decoded) in enumerate(zip(spans, batch, strict=True)):
        segments, scores = pairwise_decode(
            maps.select(torch.tensor([video])),
            scoring=scoring,
            candidates=candidates,
            extent_seconds=extent,
            video_seconds=length,
        )
        assert torch.equal(decoded.segments, segments)
        assert torch.equal(decoded.scores, scores)


def test_the_powers_of_a_video_do_not_depend_on_its_batch() -> None:
    """Torch may raise the few numbers of one video to 1.2 by other code than those of a hundred."""
    maps, seconds = random_maps(5, 0, num_videos=100), [1.0] * 100
    batch = decode_batch(
        maps, scoring="detection", candidates="all", extent_seconds=seconds, video_seconds=seconds
    )
    for video, decoded in enumerate(batch):
        _, scores = pairwise_decode(
            maps.select(torch.tensor([video])),
            scoring="detection",
            candidates="all",
            extent_seconds=1.0,
            video_seconds=1.0,
        )
        assert torch.equal(decoded.scores, scores)


@settings(max_examples=40, deadline=None)
@given(
    num_bins=st.integers(1, 16),
    seed=st.integers(0, 1000),
    scoring=st.sampled_from(SCORINGS),
    candidates=st.sampled_from(CANDIDATES),
    video_seconds=st.floats(0.1, 20.0),
)
def test_what_holds_of_all_proposals(
    num_bins: int, seed: int, scoring: Scoring, candidates: Candidates, video_seconds: float
) -> None:
    decoded = decode_proposals(
        random_maps(num_bins, seed),
        scoring=scoring,
        candidates=candidates,
        extent_seconds=10.0,
        video_seconds=video_seconds,
    )
    start, end = decoded.segments.unbind(1)
    assert (decoded.scores.diff() <= 0).all() and (start >= 0).all()
    assert (start < end).all() and (end <= min(10.0, video_seconds)).all()
    # The first start and the last end are always candidates, so the whole video always is one.
    assert [0.0, min(10.0, video_seconds)] in decoded.segments.tolist()


@pytest.mark.parametrize(
    ("later", "count", "last_end"), [(False, 20_100, 200), (True, 19_900, 199)]
)
def test_peers_never_propose_a_window_that_ends_with_the_video(
    later: bool, count: int, last_end: int
) -> None:
    decoded = decode_proposals(
        random_maps(200, 0),
        scoring="recall",
        candidates="all",
        extent_seconds=200.0,
        video_seconds=200.0,
        ends_one_bin_later=later,
    )
    assert len(decoded.scores) == count and decoded.segments.max() == last_end


def test_an_empty_batch_gives_nothing() -> None:
    none = random_maps(4, 0).select(torch.zeros(0, dtype=torch.int64))
    for scoring in SCORINGS:
        assert decode_batch(none, scoring=scoring, extent_seconds=[], video_seconds=[]) == []


@pytest.mark.parametrize("action", [(0.2, 0.5), (0.0, 0.1), (0.7, 1.0), (0.0, 1.0)])
def test_decoding_perfect_maps_gives_the_action_back(action: tuple[float, float]) -> None:
    """The same convention on both sides, also for an action that ends with the video."""
    targets = bmn_targets([torch.tensor([action])], num_bins=20)
    maps = BoundaryMaps(targets.start, targets.end, targets.iou, targets.iou)
    decoded = decode_proposals(maps, scoring="detection", extent_seconds=40.0, video_seconds=40.0)
    assert decoded.scores[0].item() == pytest.approx(1)
    assert decoded.segments[0].tolist() == pytest.approx([action[0] * 40, action[1] * 40])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"scoring": "best"}, "'detection' or 'recall', got 'best'"),
        ({"candidates": "some"}, "'peaks' or 'all', got 'some'"),
        ({"extent_seconds": [1, 0]}, "positive and finite, got 0 and 1"),
        ({"video_seconds": [float("nan"), 1]}, "positive and finite, got 1 and nan"),
        ({"video_seconds": [float("inf"), 1]}, "positive and finite, got 1 and inf"),
        ({"video_seconds": [1]}, "for each of 2 videos, got 2 and 1"),
    ],
)
def test_refuses_wrong_choices(choice: dict[str, Any], message: str) -> None:
    usual = {"scoring": "recall", "extent_seconds": [1, 1], "video_seconds": [1, 1]}
    with pytest.raises(ValueError, match=message):
        decode_batch(random_maps(4, 0, num_videos=2), **(usual | choice))


def test_refuses_several_videos_and_shapes_that_do_not_fit() -> None:
    two = random_maps(4, 0, num_videos=2)
    with pytest.raises(ValueError, match="one video, got 2"):
        decode_proposals(two, scoring="recall", extent_seconds=1, video_seconds=1)
    with pytest.raises(ValueError, match=r"got \(3, 1\) and \(3,\)"):
        DecodedProposals(torch.zeros(3, 1), torch.zeros(3))
