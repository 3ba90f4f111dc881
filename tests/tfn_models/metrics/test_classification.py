import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_models.metrics import top_k_accuracy

Case = tuple[list[list[float]], list[set[int]], int]


def slow_accuracy(scores: list[list[float]], labels: list[set[int]], *, k: int) -> float:
    """Video by video: rank the list of what was predicted, look whether a true class is on top."""
    num_right = 0
    for row, true in zip(scores, labels, strict=True):
        predicted = [label for label, score in enumerate(row) if score > -np.inf]
        best = np.array([row[label] for label in predicted]).argsort()[::-1][:k]
        num_right += any(predicted[rank] in true for rank in best)
    return num_right / float(len(labels))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few scores, so that they tie; classes that were not predicted, videos without any."""
    num_classes = draw(st.integers(1, 24))
    score = st.sampled_from([-np.inf, -1.0, 0.0, 0.1, 0.3])
    rows = st.lists(score, min_size=num_classes, max_size=num_classes)
    scores = draw(st.lists(rows, min_size=1, max_size=8))
    true = st.sets(st.integers(0, num_classes - 1), min_size=1, max_size=3)
    labels = draw(st.lists(true, min_size=len(scores), max_size=len(scores)))
    return scores, labels, draw(st.integers(1, num_classes))


@given(cases())
def test_equals_the_loop_to_the_last_bit(case: Case) -> None:
    scores, labels, k = case
    assert top_k_accuracy(scores, labels, k=k) == slow_accuracy(scores, labels, k=k)


@given(cases())
def test_one_label_a_video_may_be_a_column(case: Case) -> None:
    scores, labels, k = case
    column = np.array([min(entry) for entry in labels])
    expected = slow_accuracy(scores, [{int(label)} for label in column], k=k)
    assert top_k_accuracy(scores, column, k=k) == expected


@given(cases())
def test_more_guesses_never_hurt_and_all_of_them_find_all_that_was_predicted(case: Case) -> None:
    scores, labels, _ = case
    accuracy = [top_k_accuracy(scores, labels, k=k) for k in range(1, len(scores[0]) + 1)]
    assert accuracy == sorted(accuracy)
    reachable = [
        any(row[label] > -np.inf for label in true)
        for row, true in zip(scores, labels, strict=True)
    ]
    assert accuracy[-1] == sum(reachable) / len(labels)


def test_many_videos_and_classes() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 40, (500, 200)).astype(float)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    labels = [set(rng.integers(0, 200, rng.integers(1, 4)).tolist()) for _ in scores]
    for k in (1, 5, 200):
        expected = slow_accuracy(scores.tolist(), labels, k=k)
        assert top_k_accuracy(scores, labels, k=k) == expected


def test_by_hand() -> None:
    scores = [[0.1, 0.7, 0.2], [0.5, 0.3, 0.4]]
    assert top_k_accuracy(scores, [{1}, {2}], k=1) == 0.5
    assert top_k_accuracy(scores, [{1}, {2}], k=2) == 1.0
    assert top_k_accuracy(scores, [{0, 1}, {1, 2}], k=1) == 0.5


def test_what_was_not_predicted_is_never_right() -> None:
    assert top_k_accuracy([[-np.inf, 1.0]], [{0}], k=2) == 0.0
    assert top_k_accuracy([[-np.inf, -np.inf], [0.0, 1.0]], [{0}, {1}], k=2) == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        ([[np.nan, 1.0]], [{0}], 1, "must not be NaN, got 1"),
        ([0.0, 1.0], [{0}], 1, r"\[V, K\] with V and K at least 1, got \[2\]"),
        ([[0.0, 1.0]], [{0}], 3, r"k must be in 1..2 \(the number of classes\), got 3"),
        ([[0.0, 1.0]], [{0}, {1}], 1, "got 2 for 1"),
        ([[0.0, 1.0]], [set()], 1, r"labels\[0\] must be one or more classes in 0..1, got set\(\)"),
        ([[0.0, 1.0]], np.array([-1]), 1, r"labels\[0\] .* got -1"),
        ([[0.0, 1.0]], np.array([0.5]), 1, r"labels\[0\] .* got 0.5"),
    ],
)
def test_bad_input_is_refused(scores: object, labels: object, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k_accuracy(scores, labels, k=k)
