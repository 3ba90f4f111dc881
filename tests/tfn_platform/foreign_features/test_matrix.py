"""Arrays of any published shape become rows of clips; exchanged axes are recognised."""

from itertools import product

import numpy as np
import pytest

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.matrix import Axes, MatrixLayout, to_matrix

WIDTH = 5


def layout(axes: Axes = "TC", *, feature_dim: int = WIDTH, value_type: str = "float32"):
    return MatrixLayout(axes, feature_dim, value_type)  # type: ignore[arg-type]


def clips(count: int, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("axes", "count", "front", "back"),
    list(product(("TC", "CT"), (1, 2, 9), range(3), range(3))),
)
def test_axes_of_size_one_are_dropped(axes: Axes, count: int, front: int, back: int) -> None:
    """Also where the video has a single clip, whose own axis has size 1, too."""
    values = clips(count)
    array = values if axes == "TC" else values.T
    array = array.reshape(*[1] * front, *array.shape, *[1] * back)
    found = to_matrix([array], layout(axes))
    np.testing.assert_array_equal(found, values)
    assert found.flags.c_contiguous


def test_arrays_are_joined_in_order_and_empty_ones_left_out() -> None:
    slow, fast = clips(7, 3), clips(7, 2)
    arrays = [slow.T[None], np.empty((1, 0)), fast.T[None]]
    found = to_matrix(arrays, layout("CT"))
    np.testing.assert_array_equal(found, np.concatenate([slow, fast], axis=1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("value_type", ["float16", "float32"])
def test_values_are_rounded_once(dtype: str, value_type: str) -> None:
    values = clips(4).astype(dtype)
    found = to_matrix([values], layout(value_type=value_type))
    assert found.dtype == value_type
    np.testing.assert_array_equal(found, values.astype(value_type))


@pytest.mark.parametrize(("axes", "other"), [("TC", "CT"), ("CT", "TC")])
def test_exchanged_axes_are_said(axes: Axes, other: str) -> None:
    array = clips(9) if axes == "CT" else clips(9).T
    with pytest.raises(DataError, match=f"`axes: {other}` would fit feature_dim 5"):
        to_matrix([array], layout(axes))
    parts = [array[:, :2], array[:, 2:]] if axes == "CT" else [array[:2], array[2:]]
    with pytest.raises(DataError, match=f"`axes: {other}` would fit"):
        to_matrix(parts, layout(axes))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ([clips(9, 4)], "4 values a clip where feature_dim says 5"),
        ([clips(9, 3), clips(8, 2)], "not equally many clips"),
        ([np.zeros((2, 3, 4), np.float32)], "two axes"),
        ([np.zeros(5, np.float32)], "two axes"),
        ([np.zeros((0, 5), np.float32)], "no numbers"),
        ([], "no numbers"),
    ],
)
def test_wrong_shapes(arrays: list[np.ndarray], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        to_matrix(arrays, layout())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    values = clips(9)
    values[6, 2] = value
    with pytest.raises(DataError, match="first in clip 6"):
        to_matrix([values], layout())


def test_values_too_large_for_the_type() -> None:
    values = clips(9).astype(np.float64)
    values[3, 1] = 70000
    assert to_matrix([values], layout())[3, 1] == 70000
    with pytest.raises(DataError, match="do not fit into float16, the largest is 7e\\+04"):
        to_matrix([values], layout(value_type="float16"))
    values[3, 1] = 1e300
    with pytest.raises(DataError, match="do not fit into float32"):
        to_matrix([values], layout())
