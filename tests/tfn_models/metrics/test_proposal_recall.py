import importlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfn_models.metrics import TIOUS, ScoredSegments, Segments, proposal_recall
from tfn_models.metrics.columns import Floats

Case = tuple[Segments, ScoredSegments]


def segments_of(rows: list[tuple[int, ...]], *, unit: float) -> dict[str, np.ndarray]:
    video, start, length, _ = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return {
        "video": video,
        "label": np.zeros_like(video),
        "start": start * unit,
        "end": (start + length) * unit,
    }


def rows_of(videos: int) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Video, start and length in ticks, score: so few of each that all of them tie."""
    return st.tuples(*(st.integers(0, number) for number in (videos - 1, 5, 5, 3)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Videos without proposals, proposals for two unknown videos, segments without length."""
    unit = draw(st.sampled_from([1.0, 0.1, 1 / 3]))
    truth = draw(st.lists(rows_of(3), min_size=1, max_size=10))
    found = draw(st.lists(rows_of(5), min_size=1, max_size=40))
    score = np.array([row[3] for row in found]) / 3
    return (
        Segments(**segments_of(truth, unit=unit)),
        ScoredSegments(**segments_of(found, unit=unit), score=score),
    )


def big_case() -> Case:
    """Forty videos with up to sixty proposals each, anywhere."""
    rng = np.random.default_rng(0)

    def draw(number: int, *, videos: int) -> dict[str, np.ndarray]:
        start = rng.random(number) * 10
        return {
            "video": rng.integers(0, videos, number) ** 2 // videos,
            "label": np.zeros(number, dtype=np.int64),
            "start": start,
            "end": start + rng.random(number) * 5,
        }

    truth, found = draw(120, videos=40), draw(1500, videos=44)
    return Segments(**truth), ScoredSegments(**found, score=rng.integers(0, 300, 1500) / 300)


def slow_recall(
    truth: Segments, found: ScoredSegments, *, max_average: float
) -> tuple[Floats, Floats, float]:
    """Video by video and point by point; also the numbers of proposals and the percentage."""
    videos = list(dict.fromkeys(truth.video.tolist()))
    ratio = max_average * float(len(videos)) / len(found)
    iou_of = {}
    for video in videos:
        rows = np.flatnonzero(found.video == video)
        rows = rows[found.score[rows].argsort()[::-1]][: int(len(rows) * ratio)]
        goals = np.flatnonzero(truth.video == video)
        iou = np.zeros((len(goals), len(rows)))
        for g, goal in enumerate(goals):
            for p, row in enumerate(rows):
                shared = max(
                    0.0,
                    min(truth.end[goal], found.end[row]) - max(truth.start[goal], found.start[row]),
                )
                lengths = (truth.end - truth.start)[goal] + (found.end - found.start)[row]
                iou[g, p] = shared / (lengths - shared) if lengths - shared > 0 else 0.0
        iou_of[video] = iou
    total = sum(iou.shape[1] for iou in iou_of.values())
    shares = np.arange(1, 101) / 100.0 * (max_average * float(len(videos)) / total)
    recall = np.zeros((len(TIOUS), 100))
    for t, tiou in enumerate(TIOUS):
        for s, share in enumerate(shares):
            hits = sum(
                int((iou[:, : int(iou.shape[1] * share)] >= tiou).any(axis=1).sum())
                for iou in iou_of.values()
            )
            recall[t, s] = hits / len(truth)
    numbers = shares * (float(total) / len(videos))
    area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    percentage = 100.0 * float(area(recall.mean(axis=0), numbers)) / numbers[-1]
    return recall, numbers, float(percentage)


def num_used(truth: Segments, found: ScoredSegments, *, max_average: float) -> int:
    """Proposals that take part; with none of them the toolkit divides by zero."""
    videos, sizes = np.unique(found.video, return_counts=True)
    sizes = sizes[np.isin(videos, truth.video)]
    ratio = max_average * len(np.unique(truth.video)) / len(found)
    return sum(min(int(size * ratio), size) for size in sizes.tolist())


def check(truth: Segments, found: ScoredSegments, *, max_average: float) -> None:
    result = proposal_recall(truth, found, max_average=max_average)
    recall, numbers, percentage = slow_recall(truth, found, max_average=max_average)
    assert np.array_equal(result.recall, recall)
    assert np.array_equal(result.average_recall, recall.mean(axis=0))
    assert np.array_equal(result.proposals_per_video, numbers)
    assert result.auc == percentage


@settings(max_examples=60)
@given(cases(), st.sampled_from([1, 2.5, 7, 100]))
def test_equals_the_loop_to_the_last_bit(case: Case, max_average: float) -> None:
    assume(num_used(*case, max_average=max_average) > 0)
    check(*case, max_average=max_average)


@pytest.mark.parametrize("max_average", [3, 17.5, 100])
def test_equals_the_loop_with_many_videos(max_average: float) -> None:
    check(*big_case(), max_average=max_average)


@pytest.mark.parametrize("pairs_at_once", [1, 7, 1000])
def test_comparing_fewer_at_once_changes_nothing(
    pairs_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, found = big_case()
    expected = proposal_recall(truth, found).recall
    # The package offers the function under the name of its module.
    module = importlib.import_module("tfn_models.metrics.proposal_recall")
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs_at_once)
    assert np.array_equal(proposal_recall(truth, found).recall, expected)


@given(cases(), st.sampled_from([1, 2.5, 7, 100]))
def test_more_proposals_never_lower_recall(case: Case, max_average: float) -> None:
    result = proposal_recall(*case, max_average=max_average)
    assert (np.diff(result.recall, axis=1) >= 0).all()
    assert (np.diff(result.recall, axis=0) <= 0).all()
    assert 0 <= result.auc <= 100


def simple(video: list[int], start: list[float], end: list[float]) -> dict[str, np.ndarray]:
    return {
        "video": np.array(video),
        "label": np.zeros(len(video), dtype=np.int64),
        "start": np.array(start),
        "end": np.array(end),
    }


def test_by_hand() -> None:
    """One video is found by its first of two proposals at IoU 0.8, one by its second at 1."""
    truth = Segments(**simple([0, 1], [0.0, 0.0], [10.0, 10.0]))
    proposals = ScoredSegments(
        **simple([0, 0, 1, 1], [0.0, 20.0, 20.0, 0.0], [8.0, 30.0, 30.0, 10.0]),
        score=np.array([0.9, 0.8, 0.9, 0.8]),
    )
    result = proposal_recall(truth, proposals, tious=np.array([0.75, 0.95]), max_average=2)
    assert result.at(1) == 0.25
    assert result.at(2) == 0.75
    assert result.recall[:, 49].tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="0.02 to 2 in steps of 0.02, got 3"):
        result.at(3)


def test_missing_videos_count_as_missed() -> None:
    truth = Segments(**simple([0, 1], [0.0, 0.0], [10.0, 10.0]))
    proposals = ScoredSegments(**simple([0], [0.0], [10.0]), score=np.array([1.0]))
    assert proposal_recall(truth, proposals).at(100) == 0.5


@pytest.mark.parametrize("video", [[], [5]])
def test_no_proposal_for_any_video_gives_zero(video: list[int]) -> None:
    truth = Segments(**simple([0, 1], [0.0, 0.0], [10.0, 10.0]))
    times = [0.0] * len(video)
    found = simple(video, times, times) | {"video": np.array(video, dtype=np.int64)}
    result = proposal_recall(truth, ScoredSegments(**found, score=np.array(times)))
    assert result.auc == 0.0
    assert result.at(100) == 0.0
    assert result.proposals_per_video[-1] == 100


def test_bad_input_is_refused() -> None:
    truth, found = big_case()
    with pytest.raises(ValueError, match="max_average must be positive and finite, got 0"):
        proposal_recall(truth, found, max_average=0)
    with pytest.raises(ValueError, match="the ground truth holds no segment"):
        proposal_recall(Segments(**{k: v[:0] for k, v in vars(truth).items()}), found)
