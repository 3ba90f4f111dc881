import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_models.metrics import TIOUS, ScoredSegments, Segments, proposal_recall
from tfn_models.metrics.columns import Floats


def random_case(seed: int) -> tuple[Segments, ScoredSegments]:
    """Videos without proposals, proposals without a video, few and many proposals, ties."""
    rng = np.random.default_rng(seed)
    num_videos = int(rng.integers(1, 10))
    truths, found = int(rng.integers(10, 40)), int(rng.integers(40, 250))
    grid = seed % 2 == 0

    def times(number: int) -> dict[str, np.ndarray]:
        start = rng.integers(0, 12, number) if grid else rng.random(number) * 10
        length = rng.integers(0, 6, number) if grid else rng.random(number) * 5
        return {"start": start, "end": start + length, "label": np.zeros(number, dtype=np.int64)}

    truth = Segments(video=rng.integers(0, num_videos, truths), **times(truths))
    video = rng.integers(0, num_videos + 2, found) * (rng.random(found) < 0.7)
    score = rng.integers(0, 5, found) / 7 if seed % 4 < 2 else rng.random(found)
    return truth, ScoredSegments(video=video, score=score, **times(found))


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


@pytest.mark.parametrize("max_average", [3, 7.5, 100])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loop_to_the_last_bit(seed: int, max_average: float) -> None:
    truth, found = random_case(seed)
    result = proposal_recall(truth, found, max_average=max_average)
    recall, numbers, percentage = slow_recall(truth, found, max_average=max_average)
    assert np.array_equal(result.recall, recall)
    assert np.array_equal(result.average_recall, recall.mean(axis=0))
    assert np.array_equal(result.proposals_per_video, numbers)
    assert result.auc == percentage


@given(st.integers(0, 2**32))
def test_more_proposals_never_lower_recall(seed: int) -> None:
    truth, found = random_case(seed)
    result = proposal_recall(truth, found, max_average=20)
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
    truth, found = random_case(0)
    with pytest.raises(ValueError, match="max_average must be positive and finite, got 0"):
        proposal_recall(truth, found, max_average=0)
    with pytest.raises(ValueError, match="the ground truth holds no segment"):
        proposal_recall(Segments(**{k: v[:0] for k, v in vars(truth).items()}), found)
