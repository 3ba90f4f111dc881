"""csv files with and without a line of names; a line too long, too short or of words is refused."""

import io

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.csv_file import open_csv

VALUES = np.random.default_rng(0).normal(size=(7, 4))


def read(text: str) -> NDArray[np.float64]:
    with open_csv(io.BytesIO(text.encode())) as file:
        assert file.names == ("",)
        return file.read("")


def lines(values: NDArray[np.float64]) -> str:
    return "".join(",".join(repr(float(value)) for value in row) + "\n" for row in values)


def test_with_names() -> None:
    np.testing.assert_array_equal(read("f0,f1,f2,f3\n" + lines(VALUES)), VALUES)


def test_without_names_the_first_clip_is_kept() -> None:
    np.testing.assert_array_equal(read(lines(VALUES)), VALUES)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("names", [list("abcd"), [0, 1, 2, 3]])
def test_what_pandas_writes(index: bool, names: list[str]) -> None:
    """The line 0,1,2,3 of pandas is no clip, and its index is no channel."""
    text = pd.DataFrame(VALUES, columns=names).to_csv(index=index)
    np.testing.assert_allclose(read(text), VALUES, rtol=1e-15)


def test_a_nameless_column_that_does_not_count_stays() -> None:
    assert read(",a\n5,1\n7,2\n").shape == (2, 2)


def test_a_named_column_that_counts_stays() -> None:
    assert read("f0,f1\n0,5\n1,6\n").shape == (2, 2)


@pytest.mark.parametrize(
    "text", ["\ufefff0,f1\n1,2\n", "f0,f1\r\n1,2\r\n", '"f0","f1"\n1,2\n', "f0,f1\n1,2"]
)
def test_marks_line_ends_and_quotes(text: str) -> None:
    np.testing.assert_array_equal(read(text), [[1, 2]])


def test_nan_is_kept_for_the_check_of_values() -> None:
    assert np.isnan(read("1,nan\n2,3\n")[0, 1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3\n", "Expected 2 columns"),
        ("1,2\n3,4,5\n", "Expected 2 columns"),
        ("1,2\n3,\n", "invalid value"),
        ("1,2\n3,word\n", "invalid value"),
        ("1.5,x\n2,3\n", "all numbers or all names"),
        ("f0,f1\n", "no line of numbers"),
        ("", "no line of numbers"),
        ("<html>\n<body>404</body>\n", "csv"),
    ],
)
def test_refusals(text: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        read(text)


def test_wide_lines_over_several_blocks() -> None:
    values = np.random.default_rng(1).normal(size=(500, 2304))
    np.testing.assert_array_equal(read(lines(values)), values)
