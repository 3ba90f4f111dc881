"""Where a boundary-matching layer reads a video: the sampling mask of BMN as a sparse matrix.

Source: BMN (Lin et al., 2019, section 3.2); the positions are those of the peers' masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WindowEnd = Literal["last_bin", "next_bin"]
"""What the window of bins t .. e is sampled as: [t, e] (ours, mmaction2, OpenTAD) or [t, e + 1]
(JJBOY). Weights trained with one are of no use with the other."""

_CHUNK = 1 << 21
"""Positions worked out at a time: bounds the memory that building a table takes."""


@dataclass(frozen=True, eq=False)
class GatherTable:
    """A sparse matrix by rows: output p sums entries offsets[p] .. offsets[p + 1]."""

    offsets: NDArray[np.int32]
    """[rows] int32: first entry of each output."""
    indices: NDArray[np.int32]
    """[entries] int32: input row of each entry."""
    numerators: NDArray[np.int32]
    """[entries] int32: weight of each entry times the denominator of the table."""


@dataclass(frozen=True, eq=False)
class SamplingTable:
    """How windows (packed, by duration then start) read projected rows bin * N + sample."""

    forward: GatherTable
    backward: GatherTable
    """The same matrix transposed, so that gradients are gathered too: no scatter, no atomics."""
    denominator: int


# Of arrays: a tensor made under inference mode, a fake mode or another device would stay one.
@lru_cache(maxsize=8)
def sampling_table(
    num_bins: int,
    num_samples: int,
    positions_per_sample: int,
    window_end: WindowEnd = "last_bin",
) -> SamplingTable:
    """Build the table of all D(D+1)/2 windows exactly, in integers.

    A window lo .. hi of length L = hi - lo + 1 is read at S = N * positions_per_sample positions
    spread evenly from lo - L/2 to hi + L/2; a sample is the mean of its positions. Position p puts
    1 - f on trunc(p) and f on the next bin. Truncation is toward zero, so that p in (-1, 0) counts
    fully at bin 0; what falls on a bin that does not exist is lost. All positions are multiples of
    1 / (2 (S - 1)): integers are exact in any dtype, and p = -1 is never met by rounding.

    Raises:
        ValueError: `window_end` is unknown.
    """
    if window_end not in ("last_bin", "next_bin"):
        raise ValueError(f"window_end must be 'last_bin' or 'next_bin', got {window_end!r}")
    num_positions = num_samples * positions_per_sample
    unit = 2 * (num_positions - 1)
    bins = np.arange(num_bins)
    duration, start = np.nonzero(bins + bins[:, None] < num_bins)
    length = duration + (1 if window_end == "last_bin" else 2)
    pieces: list[list[NDArray[np.int32]]] = []
    step = max(1, _CHUNK // num_positions)
    for first in range(0, len(start), step):
        chunk = slice(first, first + step)
        cells, rows, numerators = _entries(
            start[chunk],
            length[chunk],
            num_bins=num_bins,
            num_samples=num_samples,
            positions_per_sample=positions_per_sample,
        )
        pieces.append([a.astype(np.int32) for a in (cells + first, rows, numerators)])
    columns = (np.concatenate(column) for column in zip(*pieces, strict=True))
    all_cells, all_rows, all_numerators = columns
    return SamplingTable(
        forward=_gather_table(all_cells, all_rows, all_numerators, num_outputs=len(start)),
        backward=_gather_table(
            all_rows, all_cells, all_numerators, num_outputs=num_bins * num_samples
        ),
        denominator=unit * positions_per_sample,
    )


def _entries(
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    *,
    num_bins: int,
    num_samples: int,
    positions_per_sample: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cell, row and numerator of each non-zero weight of some windows, by cell, then row."""
    num_positions = num_samples * positions_per_sample
    unit = 2 * (num_positions - 1)
    order = np.arange(num_positions)
    lowest = (2 * start - length)[:, None] * (unit // 2)
    position = lowest + 2 * order * (2 * length - 1)[:, None]

    low_bin = np.maximum(position // unit, 0)
    high_weight = np.where(position >= 0, position % unit, 0)
    low_weight = np.where(position > -unit, unit - high_weight, 0)
    bins = np.stack([low_bin, low_bin + 1])
    weights = np.stack([low_weight, high_weight])
    kept = (weights > 0) & (bins < num_bins)

    num_rows = num_bins * num_samples
    cell = np.arange(len(start))[:, None]
    keys = (cell * num_rows + bins * num_samples + order // positions_per_sample)[kept]
    by_key = np.argsort(keys, kind="stable")
    keys, first = np.unique(keys[by_key], return_index=True)
    numerators = np.add.reduceat(weights[kept][by_key], first)
    cells, rows = np.divmod(keys, num_rows)
    return cells, rows, numerators


def _gather_table(
    outputs: NDArray[np.int32],
    inputs: NDArray[np.int32],
    numerators: NDArray[np.int32],
    *,
    num_outputs: int,
) -> GatherTable:
    order = np.argsort(outputs, kind="stable")
    counts = np.bincount(outputs, minlength=num_outputs)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return GatherTable(
        offsets=offsets.astype(np.int32), indices=inputs[order], numerators=numerators[order]
    )
