"""The boundary-matching layer: features of every window of a video, as a sparse product.

BMN (Lin et al., 2019, section 3.2) multiplies the sequence by a dense [D, N * D * D] sampling
mask and collapses the N samples with a Conv3d. Both are linear, so they commute: project the
sequence with all N sample kernels in one matrix product, then gather and sum the few rows that
each window touches. The numbers are the same; windows that do not exist cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tfn_models.boundary_maps import valid_cell_index

CONTEXT = 0.5
"""A window is sampled with this share of its length added on each side."""


@dataclass(frozen=True)
class GatherTable:
    """A sparse matrix by rows: output p sums entries offsets[p] .. offsets[p + 1]."""

    offsets: Tensor
    """[rows] int32: first entry of each output."""
    indices: Tensor
    """[entries] int32: input row of each entry."""
    numerators: Tensor
    """[entries] int32: weight of each entry times the denominator of the table."""


@dataclass(frozen=True)
class SamplingTable:
    """How windows (packed, by duration then start) read projected rows bin * N + sample."""

    forward: GatherTable
    backward: GatherTable
    """The same matrix transposed, so that gradients are gathered too: no scatter, no atomics."""
    denominator: int


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def sampling_table(num_bins: int, num_samples: int, positions_per_sample: int) -> SamplingTable:
    """Build the table exactly, in integers.

    A window lo .. hi of length L is read at S = N * positions_per_sample positions spread evenly
    from lo - L/2 to hi + L/2; a sample is the mean of its positions. Position p puts 1 - f on
    trunc(p) and f on the next bin. Truncation is toward zero, so that p in (-1, 0) counts fully
    at bin 0; what falls on a bin that does not exist is lost. All positions are multiples of
    1 / (2 (S - 1)): integers are exact in any dtype, and p = -1 is never met by rounding.
    """
    num_positions = num_samples * positions_per_sample
    unit = 2 * (num_positions - 1)
    duration, start = np.divmod(valid_cell_index(num_bins).numpy(), num_bins)
    length = (duration + 1)[:, None]
    order = np.arange(num_positions)
    position = (2 * start[:, None] - length) * (unit // 2) + 2 * order * (2 * length - 1)

    low_bin = np.maximum(position // unit, 0)
    high_weight = np.where(position >= 0, position % unit, 0)
    low_weight = np.where(position > -unit, unit - high_weight, 0)
    bins = np.stack([low_bin, low_bin + 1])
    weights = np.stack([low_weight, high_weight])
    kept = (weights > 0) & (bins < num_bins)

    num_rows = num_bins * num_samples
    sample = order // positions_per_sample
    cell = np.arange(len(start))[:, None]
    keys = (cell * num_rows + bins * num_samples + sample)[kept]
    by_key = np.argsort(keys, kind="stable")
    keys, first = np.unique(keys[by_key], return_index=True)
    numerators = np.add.reduceat(weights[kept][by_key], first)
    cells, rows = np.divmod(keys, num_rows)
    return SamplingTable(
        forward=_gather_table(cells, rows, numerators, num_outputs=len(start)),
        backward=_gather_table(rows, cells, numerators, num_outputs=num_rows),
        denominator=unit * positions_per_sample,
    )


def _gather_table(
    outputs: NDArray[np.int64],
    inputs: NDArray[np.int64],
    numerators: NDArray[np.int64],
    *,
    num_outputs: int,
) -> GatherTable:
    order = np.argsort(outputs, kind="stable")
    counts = np.bincount(outputs, minlength=num_outputs)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return GatherTable(
        *(torch.from_numpy(a.astype(np.int32)) for a in (offsets, inputs[order], numerators[order]))
    )


def _gather(values: Tensor, table: GatherTable, denominator: int) -> Tensor:
    """Apply the sparse matrix to each video: [B, rows in, C] -> [B, rows out, C]."""
    weights = table.numerators.to(values.dtype) / denominator
    result = values.new_empty((values.shape[0], len(table.offsets), values.shape[2]))
    for video, rows in enumerate(values):
        result[video] = F.embedding_bag(
            table.indices, rows, table.offsets, mode="sum", per_sample_weights=weights
        )
    return result


class _GatherWindows(torch.autograd.Function):
    """The sparse product; its gradient is the product with the transposed table."""

    @staticmethod
    def forward(ctx, values: Tensor, table: SamplingTable) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.table = table
        return _gather(values, table.forward, table.denominator)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        table = ctx.table
        return _gather(gradient.contiguous(), table.backward, table.denominator), None


class BoundaryMatching(nn.Module):
    """Sample every window of a sequence at N points and project the samples.

    The parameters are those of the peers' Conv3d(in, out, (N, 1, 1)); weight is [in, N, out].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_bins: int,
        num_samples: int = 32,
        positions_per_sample: int = 3,
    ) -> None:
        """Draw the parameters as Conv3d does."""
        super().__init__()
        for name, value in (("num_bins", num_bins), ("num_samples", num_samples)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        if positions_per_sample < 1:
            raise ValueError(f"positions_per_sample must be at least 1, got {positions_per_sample}")
        self.num_bins = num_bins
        bound = 1 / math.sqrt(in_channels * num_samples)
        self.weight = nn.Parameter(torch.empty(in_channels, num_samples, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        table = sampling_table(num_bins, num_samples, positions_per_sample)
        self._denominator = table.denominator
        for side, part in (("forward", table.forward), ("backward", table.backward)):
            for name in ("offsets", "indices", "numerators"):
                self.register_buffer(f"_{side}_{name}", getattr(part, name), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D] -> [B, D(D+1)/2, O]: the windows that exist, by duration, then start.

        In the dense layer a window that does not exist holds `bias` alone. fp16 and bf16 inputs
        are gathered in fp32.
        """
        if x.dim() != 3 or x.shape[2] != self.num_bins:
            raise ValueError(f"x must be [B, C, {self.num_bins}], got shape {tuple(x.shape)}")
        projected = x.transpose(1, 2) @ self.weight.flatten(1)
        if projected.dtype in (torch.float16, torch.bfloat16):
            projected = projected.float()
        rows = projected.reshape(len(x), -1, self.weight.shape[2])
        windows: Tensor = _GatherWindows.apply(rows, self._table())
        return windows + self.bias

    def _table(self) -> SamplingTable:
        return SamplingTable(
            forward=self._side("forward"),
            backward=self._side("backward"),
            denominator=self._denominator,
        )

    def _side(self, side: str) -> GatherTable:
        return GatherTable(
            offsets=self.get_buffer(f"_{side}_offsets"),
            indices=self.get_buffer(f"_{side}_indices"),
            numerators=self.get_buffer(f"_{side}_numerators"),
        )
