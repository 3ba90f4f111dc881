import numpy as np
import pytest

from tfn_models.metrics import top_k_accuracy


def slow_accuracy(scores: np.ndarray, labels: list[set[int]], *, k: int) -> float:
    right = 0
    for row, true in zip(scores.tolist(), labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda label: (-row[label], label))
        right += any(label in true for label in ranked[:k] if row[label] > -np.inf)
    return right / len(labels)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loop(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (40, 7)).astype(float)
    scores[scores == 0] = -np.inf
    labels = [set(rng.integers(0, 7, rng.integers(1, 4)).tolist()) for _ in range(40)]
    assert top_k_accuracy(scores, labels, k=k) == slow_accuracy(scores, labels, k=k)
    single = rng.integers(0, 7, 40)
    expected = slow_accuracy(scores, [{int(label)} for label in single], k=k)
    assert top_k_accuracy(scores, single, k=k) == expected


def test_by_hand() -> None:
    scores = [[0.1, 0.7, 0.2], [0.5, 0.3, 0.4]]
    assert top_k_accuracy(scores, [{1}, {2}], k=1) == 0.5
    assert top_k_accuracy(scores, [{1}, {2}], k=2) == 1.0
    assert top_k_accuracy(scores, [{0, 1}, {1, 2}], k=1) == 0.5


def test_what_was_not_predicted_is_never_right() -> None:
    assert top_k_accuracy([[-np.inf, 1.0]], [{0}], k=2) == 0.0


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        ([[np.nan, 1.0]], [{0}], 1, "must not be NaN, got 1"),
        ([0.0, 1.0], [{0}], 1, r"\[V, K\] with V and K at least 1, got \[2\]"),
        ([[0.0, 1.0]], [{0}], 3, r"k must be in 1..2 \(the number of classes\), got 3"),
        ([[0.0, 1.0]], [{0}, {1}], 1, "got 2 for 1"),
        ([[0.0, 1.0]], [set()], 1, r"labels\[0\] must be one or more classes in 0..1, got set\(\)"),
        ([[0.0, 1.0]], np.array([-1]), 1, r"labels\[0\] .* got -1"),
    ],
)
def test_bad_input_is_refused(scores: object, labels: object, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k_accuracy(scores, labels, k=k)
