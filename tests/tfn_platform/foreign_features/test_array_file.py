"""An array is judged by its header, before its numbers are read."""

import numpy as np
import pytest

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.array_file import (
    MAX_ARRAY_BYTES,
    ArrayFile,
    array_file_of,
    check_array,
    readable,
)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floating_point_numbers_are_features(dtype: str) -> None:
    check_array((3, 4), np.dtype(dtype))


@pytest.mark.parametrize(
    ("dtype", "expected"), [("i4", "int32"), ("O", "Python objects"), ("U3", "U3"), ("?", "bool")]
)
def test_others_are_not(dtype: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        check_array((3, 4), np.dtype(dtype))


def test_a_huge_shape_is_refused_without_overflow() -> None:
    check_array((MAX_ARRAY_BYTES // 4,), np.dtype(np.float32))
    with pytest.raises(DataError, match="GiB"):
        check_array((MAX_ARRAY_BYTES // 4 + 1,), np.dtype(np.float32))
    with pytest.raises(DataError, match="GiB"):
        check_array((2**40, 2**40), np.dtype(np.float32))


def test_arrays_in_memory_are_read_by_name() -> None:
    arrays = {"a": np.zeros((2, 3)), "b": np.ones((2, 3), np.int64)}
    file = array_file_of(arrays)
    assert file.names == ("a", "b")
    assert file.read("a") is arrays["a"]
    with pytest.raises(DataError, match="int64"):
        file.read("b")


def test_the_listing_is_short() -> None:
    file = ArrayFile(tuple(f"v{number}" for number in range(20)), lambda _: np.zeros(1))
    assert file.listing().endswith("'v7' and 12 more")
    assert ArrayFile((), lambda _: np.zeros(1)).listing() == "none"


def test_a_shape_is_made_of_sizes() -> None:
    with pytest.raises(DataError, match=r"cannot have the shape \(-2, -3\)"):
        check_array((-2, -3), np.dtype("f4"))


def test_what_a_library_says_becomes_one_kind_of_error() -> None:
    for error in (RuntimeError("broken"), IndexError("broken"), OSError("broken")):
        with pytest.raises(DataError, match="not a readable file: broken"):
            with readable("not a readable file"):
                raise error
    with pytest.raises(DataError, match="^as it is$"), readable("not a readable file"):
        raise DataError("as it is")
    with pytest.raises(DataError, match="not a readable file: KeyError"):
        with readable("not a readable file"):
            raise KeyError
    with pytest.raises(KeyboardInterrupt), readable("not a readable file"):
        raise KeyboardInterrupt
