from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_models.metrics import TIOUS, ScoredSegments, Segments, detection_map
from tfn_models.metrics.columns import Floats


def random_segments(
    rng: np.random.Generator, *, number: int, num_videos: int, num_classes: int, kind: str
) -> Segments:
    """Anywhere; on a grid (IoUs tie, lengths are 0); crowded (many want the same)."""
    first, shortest, longest = (6, 4, 10) if kind == "crowded" else (12, 0, 6)
    start = rng.random(number) * 10 if kind == "free" else rng.integers(0, first, number)
    free = rng.random(number) * 5
    length = free if kind == "free" else rng.integers(shortest, longest, number)
    return Segments(
        video=rng.integers(0, num_videos, number),
        label=rng.integers(0, num_classes, number),
        start=start,
        end=start + length,
    )


def random_case(seed: int) -> tuple[Segments, ScoredSegments]:
    """Some videos and classes have no ground truth, some no prediction; scores may tie."""
    rng = np.random.default_rng(seed)
    kind = ("grid", "crowded", "free")[seed % 3]
    num_videos, num_classes = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    truth = random_segments(
        rng,
        number=int(rng.integers(1, 60)),
        num_videos=num_videos,
        num_classes=num_classes,
        kind=kind,
    )
    found = random_segments(
        rng,
        number=int(rng.integers(0, 150)),
        num_videos=num_videos + 2,
        num_classes=num_classes + 1,
        kind=kind,
    )
    score = rng.integers(0, 5, len(found)) / 7 if seed % 4 < 2 else rng.random(len(found))
    return truth, ScoredSegments(**vars(found), score=score)


def slow_average_precision(truth: Segments, found: ScoredSegments, *, tiou: float) -> float:
    """One class, one threshold, one prediction after the other, from the definition."""
    taken: set[int] = set()
    right = []
    for row in found.score.argsort()[::-1]:
        rivals = np.flatnonzero(truth.video == found.video[row])
        overlap = np.minimum(truth.end[rivals], found.end[row]) - np.maximum(
            truth.start[rivals], found.start[row]
        )
        shared = overlap.clip(0)
        lengths = (truth.end - truth.start)[rivals] + (found.end[row] - found.start[row])
        with np.errstate(invalid="ignore"):
            iou = shared / (lengths - shared)
        free = [g for g in iou.argsort()[::-1] if not iou[g] < tiou and rivals[g] not in taken]
        right.append(bool(free))
        if free:
            taken.add(int(rivals[free[0]]))
    precision = [sum(right[: n + 1]) / (n + 1) for n in range(len(right))] + [0.0]
    recall = [0.0] + [sum(right[: n + 1]) / len(truth) for n in range(len(right))] + [1.0]
    areas = [
        (recall[n + 1] - recall[n]) * max(precision[n:])
        for n in range(len(precision))
        if recall[n + 1] != recall[n]
    ]
    return float(np.sum(areas))


def of_class(table: Segments, label: int) -> Segments:
    return replace(
        table, **{key: column[table.label == label] for key, column in vars(table).items()}
    )


def slow_map(truth: Segments, found: ScoredSegments) -> tuple[Floats, float]:
    ap = np.array(
        [
            [
                slow_average_precision(of_class(truth, label), of_class(found, label), tiou=tiou)
                for label in np.unique(truth.label)
            ]
            for tiou in TIOUS
        ]
    )
    return ap, float(ap.mean(axis=1).mean())


@pytest.mark.parametrize("seed", range(24))
def test_equals_the_loop_to_the_last_bit(seed: int) -> None:
    truth, found = random_case(seed)
    result = detection_map(truth, found)
    ap, average = slow_map(truth, found)
    assert np.array_equal(result.ap, ap)
    assert np.array_equal(result.mean_ap, ap.mean(axis=1))
    assert result.average == average
    assert np.array_equal(result.labels, np.unique(truth.label))


@given(st.integers(0, 2**32))
def test_equals_the_loop_on_any_case(seed: int) -> None:
    truth, found = random_case(seed)
    few = replace(found, **{key: column[:25] for key, column in vars(found).items()})
    assert np.array_equal(detection_map(truth, few).ap, slow_map(truth, few)[0])


def table(rows: list[tuple[int, int, float, float]]) -> dict[str, np.ndarray]:
    video, label, start, end = zip(*rows, strict=True)
    return {
        "video": np.array(video),
        "label": np.array(label),
        "start": np.array(start),
        "end": np.array(end),
    }


def test_by_hand() -> None:
    """Right at rank 0, wrong at rank 1 (taken), right at rank 2: 1/2 * 1 + 1/2 * 2/3."""
    truth = Segments(**table([(0, 7, 0.0, 10.0), (1, 7, 0.0, 10.0)]))
    found = ScoredSegments(
        **table([(0, 7, 0.0, 9.0), (0, 7, 0.0, 10.0), (1, 7, 0.0, 5.0)]),
        score=np.array([0.9, 0.8, 0.7]),
    )
    result = detection_map(truth, found, tious=np.array([0.5, 0.75]))
    assert result.ap[:, 0].tolist() == pytest.approx([0.5 + 0.5 * 2 / 3, 0.5])
    assert result.average == pytest.approx((0.5 + 1 / 3 + 0.5) / 2)


def test_a_prediction_whose_favourite_is_taken_gets_the_next_best() -> None:
    truth = Segments(**table([(0, 0, 0.0, 10.0), (0, 0, 1.0, 10.0)]))
    found = ScoredSegments(
        **table([(0, 0, 0.0, 10.0), (0, 0, 0.0, 10.0)]), score=np.array([0.9, 0.8])
    )
    assert detection_map(truth, found).mean_ap.tolist() == [1.0] * 9 + [0.5]


def test_a_prediction_pushed_out_by_a_better_one_asks_on() -> None:
    """The second is pushed from A to B, where it pushes the third out to C: all three are right."""
    truth = Segments(**table([(0, 0, 0.0, 100.0), (0, 0, 5.0, 105.0), (0, 0, 10.0, 110.0)]))
    found = ScoredSegments(
        **table([(0, 0, 0.0, 100.0), (0, 0, 1.0, 101.0), (0, 0, 6.0, 106.0)]),
        score=np.array([0.9, 0.8, 0.7]),
    )
    assert detection_map(truth, found, tious=np.array([0.5, 0.9])).mean_ap.tolist() == [1.0, 1.0]


def test_ground_truth_scored_against_itself_is_perfect_even_without_length() -> None:
    truth, _ = random_case(0)
    assert (truth.start == truth.end).any()
    result = detection_map(truth, ScoredSegments(**vars(truth), score=np.ones(len(truth))))
    assert (result.ap == 1.0).all()


def test_predictions_of_other_classes_do_not_count_but_those_of_other_videos_do() -> None:
    truth = Segments(**table([(0, 0, 0.0, 10.0)]))
    rows = [(0, 0, 0.0, 10.0), (0, 5, 0.0, 10.0), (9, 0, 0.0, 10.0)]
    score = np.array([0.1, 0.9, 0.9])
    assert detection_map(truth, ScoredSegments(**table(rows), score=score)).average == 0.5
    assert detection_map(truth, ScoredSegments(**table(rows[:2]), score=score[:2])).average == 1.0


def test_no_predictions_score_zero() -> None:
    truth, found = random_case(1)
    none = replace(found, **{key: column[:0] for key, column in vars(found).items()})
    assert detection_map(truth, none).average == 0.0


def test_bad_input_is_refused() -> None:
    truth, found = random_case(2)
    none = replace(truth, **{key: column[:0] for key, column in vars(truth).items()})
    with pytest.raises(ValueError, match="the ground truth holds no segment"):
        detection_map(none, found)
    with pytest.raises(ValueError, match=r"thresholds in \(0, 1\]"):
        detection_map(truth, found, tious=np.array([0.5, 1.5]))
