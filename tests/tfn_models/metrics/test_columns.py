from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_models.metrics import TIOUS, ScoredSegments, Segments
from tfn_models.metrics.columns import lookup, paired_iou, rank_in_groups

INT64 = st.integers(-(2**63), 2**63 - 1)
NEARBY = st.integers(-5, 5)
TICKS = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)

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


@given(TICKS, TICKS)
def test_iou_is_the_nearest_number_to_the_exact_ratio(one: list[int], other: list[int]) -> None:
    iou = paired_iou(
        target_start=np.array([float(one[0])]),
        target_end=np.array([float(one[1])]),
        start=np.array([float(other[0])]),
        end=np.array([float(other[1])]),
    )
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0]) + (other[1] - other[0]) - shared
    if union:
        assert iou[0] == float(Fraction(shared, union))
    else:
        assert np.isnan(iou[0])


def rank_alone(group: np.ndarray, score: np.ndarray, number: int) -> np.ndarray:
    rows = np.flatnonzero(group == number)
    return rows[score[rows].argsort()[::-1]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=80))
def test_ranks_each_group_as_if_it_stood_alone(rows: list[tuple[int, int]]) -> None:
    """Groups of 17 and more, whose equal scores numpy does not leave in their order, too."""
    group, score = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    score = score / 3
    order, first = rank_in_groups(group, score, num_groups=5)
    for number in range(5):
        expected = rank_alone(group, score, number)
        assert np.array_equal(order[first[number] : first[number + 1]], expected)


def test_ranks_more_groups_than_16_bits_count() -> None:
    group = np.array([70_000, 3, 70_000 - 2**16, 70_000, 3])
    order, first = rank_in_groups(group, np.array([0.1, 0.2, 0.3, 0.4, 0.5]), num_groups=70_001)
    assert order.tolist() == [4, 1, 2, 3, 0]
    assert np.diff(first)[[3, 70_000 - 2**16, 70_000]].tolist() == [2, 1, 2]


@given(st.data())
def test_lookup_finds_what_is_known(data: st.DataObject) -> None:
    """Numbers close together are found through a table, numbers far apart by a search."""
    number = data.draw(st.sampled_from([NEARBY, INT64, NEARBY | INT64]))
    known = sorted(data.draw(st.sets(number, max_size=8)))
    values = data.draw(st.lists(number | st.sampled_from(known or [0]), max_size=12))
    found = lookup(np.array(values, dtype=np.int64), np.array(known, dtype=np.int64))
    assert found.tolist() == [known.index(value) if value in known else -1 for value in values]
