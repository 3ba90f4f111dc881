"""From the arrays that a file holds to one video's features, a row a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.feature_table import Values

Axes = Literal["TC", "CT"]


@dataclass(frozen=True)
class MatrixLayout:
    """How a video's arrays are to be read.

    Attributes:
        axes: "TC": a row a clip; "CT": a column a clip. Axes of size 1 beside these are dropped.
        feature_dim: F, values a clip, of all arrays of a video together.
        value_type: what the values are converted to.
    """

    axes: Axes
    feature_dim: int
    value_type: Literal["float32", "float16"]


def to_matrix(arrays: Sequence[NDArray[Any]], layout: MatrixLayout) -> Values:
    """Join a video's arrays along their channels.

    Args:
        arrays: [T, C] or [C, T] each, with any axes of size 1 in front or behind; C may differ.
            Arrays without elements are left out: a network without a fast pathway has such.
        layout: what is expected.

    Returns:
        [T, F] in C order, all finite.

    Raises:
        DataError: the arrays are of other shapes (saying so where the axes are exchanged), or hold
            numbers that are not finite or do not fit into the type.
    """
    found = [_two_axes(array, layout.axes) for array in arrays if array.size]
    if not found:
        raise DataError("holds no numbers")
    rows = [array if layout.axes == "TC" else array.T for array in found]
    lengths = {len(matrix) for matrix in rows}
    width = sum(matrix.shape[1] for matrix in rows)
    if width != layout.feature_dim or len(lengths) > 1:
        raise DataError(_wrong_shape(found, layout))
    joined = np.concatenate(rows, axis=1)
    with np.errstate(over="ignore"):
        matrix: Values = np.ascontiguousarray(joined, dtype=layout.value_type)
    is_finite = np.isfinite(matrix)
    if not is_finite.all():
        raise DataError(_not_finite(joined, is_finite, layout.value_type))
    return matrix


def _two_axes(array: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Drop axes of size 1 until two are left, on that side first where no clip is counted.

    So a video of a single clip keeps the right one.
    """
    shape = list(array.shape)
    sides = (-1, 0) if axes == "TC" else (0, -1)
    while len(shape) > 2:
        side = next((side for side in sides if shape[side] == 1), None)
        if side is None:
            break
        del shape[side]
    if len(shape) != 2:
        what = "clips and channels" if axes == "TC" else "channels and clips"
        raise DataError(f"an array of shape {array.shape} has not the two axes {what}")
    return array.reshape(shape)


def _wrong_shape(found: Sequence[NDArray[Any]], layout: MatrixLayout) -> str:
    shapes = " and ".join(str(array.shape) for array in found)
    clips, channels = (0, 1) if layout.axes == "TC" else (1, 0)
    message = (
        f"shape {shapes}, read as {'clips × channels' if clips == 0 else 'channels × clips'}, "
    )
    exchanged = sum(array.shape[clips] for array in found)
    if exchanged == layout.feature_dim and len({a.shape[channels] for a in found}) == 1:
        other = "CT" if layout.axes == "TC" else "TC"
        return f"{message}is the other way round: `axes: {other}` would fit feature_dim {exchanged}"
    if len({array.shape[clips] for array in found}) > 1:
        return f"{message}has not equally many clips in all arrays"
    width = sum(array.shape[channels] for array in found)
    return f"{message}has {width} values a clip where feature_dim says {layout.feature_dim}"


def _not_finite(joined: NDArray[Any], is_finite: NDArray[np.bool_], value_type: str) -> str:
    if np.isfinite(joined).all():
        return (
            f"{np.count_nonzero(~is_finite)} values do not fit into {value_type}, the largest is "
            f"{np.abs(joined).max():.4g}"
        )
    clip = int(np.argmin(is_finite.all(axis=1)))
    nan, infinite = np.isnan(joined).sum(), np.isinf(joined).sum()
    return f"{nan} NaN and {infinite} infinite of {joined.size} values, first in clip {clip}"
