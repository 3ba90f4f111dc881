from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_models.metrics import TIOUS, ScoredSegments, Segments, detection_map
from tfn_models.metrics.columns import Floats

UNITS = st.sampled_from([1.0, 0.1, 1 / 3])
"""Seconds a tick; times that fp64 does not hold exactly make IoUs tie almost, or not any more."""


def rows_of(videos: int, classes: int) -> st.SearchStrategy[tuple[int, int, int, int, int]]:
    """Video, class, start and length in ticks, score: so few of each that all of them tie."""
    numbers = (videos - 1, classes - 1, 5, 5, 3)
    return st.tuples(*(st.integers(0, number) for number in numbers))


def segments_of(rows: list[tuple[int, ...]], *, unit: float) -> dict[str, np.ndarray]:
    video, label, start, length, _ = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return {
        "video": video,
        "label": label,
        "start": start * unit,
        "end": (start + length) * unit,
    }


@st.composite
def cases(draw: st.DrawFn, *, max_predictions: int = 40) -> tuple[Segments, ScoredSegments]:
    """Predictions for two videos and two classes that the ground truth does not know, too.

    A video or class of the ground truth may have no prediction, a prediction no length.
    """
    unit = draw(UNITS)
    truth = draw(st.lists(rows_of(3, 2), min_size=1, max_size=14))
    found = draw(st.lists(rows_of(5, 4), max_size=max_predictions))
    score = np.array([row[4] for row in found]) / 3
    return (
        Segments(**segments_of(truth, unit=unit)),
        ScoredSegments(**segments_of(found, unit=unit), score=score),
    )


def crowded_case(*, num_truths: int, num_predictions: int) -> tuple[Segments, ScoredSegments]:
    """One class in two videos, where all is near all: hundreds of matches, long chains of them."""
    rng = np.random.default_rng(num_truths)

    def draw(number: int) -> dict[str, np.ndarray]:
        start = rng.integers(0, 40, number) / 7
        return {
            "video": rng.integers(0, 2, number),
            "label": np.zeros(number, dtype=np.int64),
            "start": start,
            "end": start + rng.integers(20, 60, number) / 7,
        }

    score = rng.integers(0, 30, num_predictions) / 30
    return Segments(**draw(num_truths)), ScoredSegments(**draw(num_predictions), score=score)


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


def slow_map(truth: Segments, found: ScoredSegments, *, tious: Floats = TIOUS) -> Floats:
    return np.array(
        [
            [
                slow_average_precision(of_class(truth, label), of_class(found, label), tiou=tiou)
                for label in np.unique(truth.label)
            ]
            for tiou in tious
        ]
    )


@given(cases())
def test_equals_the_loop_to_the_last_bit(case: tuple[Segments, ScoredSegments]) -> None:
    truth, found = case
    result = detection_map(truth, found)
    ap = slow_map(truth, found)
    assert np.array_equal(result.ap, ap)
    assert np.array_equal(result.mean_ap, ap.mean(axis=1))
    assert result.average == ap.mean(axis=1).mean()
    assert np.array_equal(result.labels, np.unique(truth.label))


@given(cases(), st.lists(st.sampled_from([1e-9, 0.2, 0.5, 2 / 3, 1.0]), min_size=1, max_size=3))
def test_any_thresholds_in_any_order(
    case: tuple[Segments, ScoredSegments], tious: list[float]
) -> None:
    result = detection_map(*case, tious=np.array(tious))
    assert np.array_equal(result.ap, slow_map(*case, tious=np.array(tious)))


@pytest.mark.parametrize("num_truths", [*range(7, 40), 140, 300])
def test_equals_the_loop_in_a_crowd(num_truths: int) -> None:
    """Sums of 8 and of 129 areas are split by numpy, sorts of more than 16 mix equal scores."""
    truth, found = crowded_case(num_truths=num_truths, num_predictions=2 * num_truths + 20)
    tious = np.array([0.3, 0.75]) if num_truths > 100 else TIOUS
    result = detection_map(truth, found, tious=tious)
    assert np.array_equal(result.ap, slow_map(truth, found, tious=tious))
    assert 0.1 < result.average < 1.0


@given(
    cases(),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5, unique=True)
    | st.permutations(range(5)),
)
def test_which_numbers_videos_have_does_not_matter(
    case: tuple[Segments, ScoredSegments], numbers: list[int]
) -> None:
    truth, found = case
    names = np.array(numbers)
    expected = detection_map(truth, found).ap
    renamed = replace(truth, video=names[truth.video]), replace(found, video=names[found.video])
    assert np.array_equal(detection_map(*renamed).ap, expected)


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


@given(cases())
def test_ground_truth_scored_against_itself_is_perfect_even_without_length(
    case: tuple[Segments, ScoredSegments],
) -> None:
    truth, _ = case
    result = detection_map(truth, ScoredSegments(**vars(truth), score=np.ones(len(truth))))
    assert (result.ap == 1.0).all()


def test_predictions_of_other_classes_do_not_count_but_those_of_other_videos_do() -> None:
    truth = Segments(**table([(0, 0, 0.0, 10.0)]))
    rows = [(0, 0, 0.0, 10.0), (0, 5, 0.0, 10.0), (9, 0, 0.0, 10.0)]
    score = np.array([0.1, 0.9, 0.9])
    assert detection_map(truth, ScoredSegments(**table(rows), score=score)).average == 0.5
    assert detection_map(truth, ScoredSegments(**table(rows[:2]), score=score[:2])).average == 1.0


def none_of(columns: Segments) -> Segments:
    return replace(columns, **{key: column[:0] for key, column in vars(columns).items()})


def test_no_predictions_score_zero() -> None:
    truth, found = crowded_case(num_truths=5, num_predictions=5)
    assert detection_map(truth, none_of(found)).average == 0.0


def test_bad_input_is_refused() -> None:
    truth, found = crowded_case(num_truths=5, num_predictions=5)
    with pytest.raises(ValueError, match="the ground truth holds no segment"):
        detection_map(none_of(truth), found)
    with pytest.raises(ValueError, match=r"thresholds in \(0, 1\]"):
        detection_map(truth, found, tious=np.array([0.5, 1.5]))
