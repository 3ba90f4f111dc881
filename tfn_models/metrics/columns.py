"""Segments of many videos as columns, and the numpy helpers that the metrics share."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

TIOUS: Floats = np.linspace(0.5, 0.95, 10)
"""The temporal IoU thresholds of ActivityNet and HACS, 0.5:0.05:0.95, to the bit."""
TIOUS.setflags(write=False)

DENSE_SPAN = 4
"""`lookup` keeps a table when the known numbers span at most this many entries a row."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Labelled segments; every column is [N], and times are in any one unit.

    `video` and `label` are numbers that the caller gives out; the metrics only compare them.
    """

    video: Ints
    label: Ints
    start: Floats
    end: Floats

    def __post_init__(self) -> None:
        """ValueError: columns of different lengths, times not finite, or reversed segments."""
        _check_columns(self)

    def __len__(self) -> int:
        """N."""
        return len(self.start)


@dataclass(frozen=True, eq=False)
class ScoredSegments:
    """Predicted segments: the columns of `Segments` and a `score` [N], higher is better."""

    video: Ints
    label: Ints
    start: Floats
    end: Floats
    score: Floats

    def __post_init__(self) -> None:
        """ValueError: columns of different lengths, numbers not finite, or reversed segments."""
        _check_columns(self)

    def __len__(self) -> int:
        """N."""
        return len(self.start)


def paired_iou(*, target_start: Floats, target_end: Floats, start: Floats, end: Floats) -> Floats:
    """Temporal IoU of predictions and targets that broadcast against one another, in one unit.

    The order of the additions is the official toolkit's, for equal bits; so is 0/0 = NaN for two
    segments that are one and the same instant.
    """
    overlap = np.maximum(np.minimum(end, target_end) - np.maximum(start, target_start), 0.0)
    union = (target_end - target_start) + (end - start) - overlap
    with np.errstate(invalid="ignore"):
        return np.asarray(overlap / union, dtype=np.float64)


def rank_in_groups(group: Ints, score: Floats, *, num_groups: int) -> tuple[Ints, Ints]:
    """Sort by group, and within a group by falling score.

    Equal scores come in the order of the official toolkit, `argsort()[::-1]` on the scores of one
    group in their original order. Groups of one size are sorted together, as the rows of a matrix.

    Shapes: `group` [N] in 0..num_groups-1, `score` [N] -> order [N], first position of each group
    [num_groups + 1].
    """
    # Up to 16 bits numpy's stable sort is a radix sort, several times faster than that of int64.
    narrow = group.astype(np.uint16) if num_groups <= 2**16 else group
    by_group = np.argsort(narrow, kind="stable")
    sizes = np.bincount(group, minlength=num_groups)
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    order = np.empty(len(group), dtype=np.int64)
    for size in np.unique(sizes[sizes > 0]):
        positions = first[:-1][sizes == size][:, None] + np.arange(size)
        members = by_group[positions]
        falling = np.argsort(score[members], axis=1)[:, ::-1]
        order[positions] = np.take_along_axis(members, falling, axis=1)
    return order, first


def lookup(values: Ints, known: Ints) -> Ints:
    """Position of each of `values` [N] in the sorted, distinct `known` [K]; -1 where absent."""
    if len(known) == 0:
        return np.full(len(values), -1, dtype=np.int64)
    low, span = int(known[0]), int(known[-1]) - int(known[0]) + 1
    if span <= DENSE_SPAN * (len(known) + len(values)):
        # Numbers given out one after the other, as usual: a table answers faster than a search.
        table = np.full(span, -1, dtype=np.int64)
        table[known - low] = np.arange(len(known))
        inside = (values >= low) & (values <= known[-1])
        return np.where(inside, table[np.where(inside, values - low, 0)], -1)
    position = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[position] == values, position, -1)


def check_tious(tious: Floats) -> Floats:
    """Return the thresholds as an array [n_tiou]; ValueError unless each lies in (0, 1]."""
    array = np.asarray(tious, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not bool(((array > 0) & (array <= 1)).all()):
        raise ValueError(f"tious must be one or more thresholds in (0, 1], got {tious}")
    return array


def _check_columns(table: Segments | ScoredSegments) -> None:
    name = type(table).__name__
    columns = {key: np.asarray(value) for key, value in vars(table).items()}
    shapes = {key: value.shape for key, value in columns.items()}
    if len(set(shapes.values())) != 1 or columns["start"].ndim != 1:
        raise ValueError(f"the columns of {name} must be [N] with one N, got {shapes}")
    for key, column in columns.items():
        integral = key in ("video", "label")
        if column.dtype.kind not in ("iu" if integral else "iuf"):
            wanted = "integers" if integral else "numbers"
            raise ValueError(f"{name}.{key} must hold {wanted}, got dtype {column.dtype}")
        columns[key] = column.astype(np.int64 if integral else np.float64)
        bad = np.flatnonzero(~np.isfinite(columns[key]))
        if bad.size:
            raise ValueError(
                f"{name}.{key} must be finite, got {columns[key][bad[0]]} in row {bad[0]} "
                f"({bad.size} such rows)"
            )
        object.__setattr__(table, key, columns[key])
    bad = np.flatnonzero(columns["end"] < columns["start"])
    if bad.size:
        row = bad[0]
        raise ValueError(
            f"a segment must not end before it starts, got {columns['start'][row]}.."
            f"{columns['end'][row]} in row {row} of {name} ({bad.size} such rows)"
        )
