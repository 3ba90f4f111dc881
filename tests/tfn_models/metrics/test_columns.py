import numpy as np
import pytest

from tfn_models.metrics import TIOUS, ScoredSegments, Segments
from tfn_models.metrics.columns import rank_in_groups

GOOD = {"video": [0, 1], "label": [0, 0], "start": [0.0, 1.0], "end": [1.0, 1.0]}


def test_thresholds_are_those_of_the_official_toolkit_and_cannot_be_changed() -> None:
    assert np.array_equal(TIOUS, np.linspace(0.5, 0.95, 10))
    with pytest.raises(ValueError, match="read-only"):
        TIOUS[0] = 0.1


def test_columns_are_made_int64_and_float64() -> None:
    table = ScoredSegments(**GOOD, score=[1, 2])
    assert len(table) == 2
    assert [column.dtype for column in vars(table).values()] == [np.int64] * 2 + [np.float64] * 3


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("start", [0.0], r"\[N\] with one N"),
        ("start", [0.0, np.nan], "Segments.start must be finite, got nan in row 1"),
        ("end", [np.inf, 1.0], "Segments.end must be finite, got inf in row 0"),
        ("end", [1.0, 0.5], r"got 1.0..0.5 in row 1 of Segments"),
        ("label", [0.0, 1.0], "Segments.label must hold integers, got dtype float64"),
        ("start", ["0", "1"], "Segments.start must hold numbers"),
    ],
)
def test_bad_columns_are_refused(column: str, values: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segments(**(GOOD | {column: values}))


def test_scores_must_be_finite() -> None:
    with pytest.raises(ValueError, match="ScoredSegments.score must be finite"):
        ScoredSegments(**GOOD, score=[np.nan, 1.0])


@pytest.mark.parametrize("seed", range(4))
def test_ranks_each_group_as_if_it_stood_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group, score = rng.integers(0, 9, 200), rng.integers(0, 4, 200) / 3
    order, first = rank_in_groups(group, score, num_groups=10)
    for number in range(10):
        rows = np.flatnonzero(group == number)
        expected = rows[score[rows].argsort()[::-1]]
        assert np.array_equal(order[first[number] : first[number + 1]], expected)
