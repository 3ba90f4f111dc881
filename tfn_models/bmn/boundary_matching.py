"""The boundary-matching layer: features of every window of a video, as a sparse product.

BMN (Lin et al., 2019, section 3.2) multiplies the sequence by a dense [D, N * D * D] sampling
mask and collapses the N samples with a Conv3d. Both are linear, so they commute: project the
sequence with all N sample kernels in one matrix product, then gather and sum the few rows that
each window touches. The numbers are the same; windows that do not exist cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.bmn.sampling import WindowEnd, sampling_table

CPU_BLOCK = 128
"""Output channels gathered at a time on a CPU. The rows of one block stay in its caches: at D = 200
the gather of 512 channels takes 80 ms at once and 60 in blocks, its transpose 220 and 70."""


def _gather(
    values: Tensor, denominator: int, offsets: Tensor, indices: Tensor, numerators: Tensor
) -> Tensor:
    """Apply a sparse matrix to each video: [B, rows in, C] -> [B, rows out, C]."""
    weights = numerators.to(values.dtype).div_(denominator)
    videos = [
        F.embedding_bag(indices, rows, offsets, mode="sum", per_sample_weights=weights)
        for rows in values.unbind()
    ]
    # A stack copies; one video needs none.
    return videos[0].unsqueeze_(0) if len(videos) == 1 else torch.stack(videos)


class _GatherWindows(torch.autograd.Function):
    """The sparse product; its gradient is the product with the transposed table."""

    @staticmethod
    def forward(ctx, values: Tensor, denominator: int, *tables: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """`tables` are offsets, indices and numerators, forward and then backward."""
        ctx.denominator = denominator
        ctx.save_for_backward(*tables[3:])
        return _gather(values, denominator, *tables[:3])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        rows = _gather(gradient.contiguous(), ctx.denominator, *ctx.saved_tensors)
        return rows, *[None] * 7


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
        window_end: WindowEnd = "last_bin",
    ) -> None:
        """Draw the parameters as Conv3d does.

        Args:
            in_channels: C of the sequence.
            out_channels: O of a window.
            num_bins: D, the length of the sequence.
            num_samples: N, samples of a window.
            positions_per_sample: positions that one sample averages.
            window_end: see `WindowEnd`.

        Raises:
            ValueError: a number is too small or `window_end` is unknown.
        """
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
        table = sampling_table(num_bins, num_samples, positions_per_sample, window_end)
        self._denominator = table.denominator
        for side, part in (("forward", table.forward), ("backward", table.backward)):
            for name in ("offsets", "indices", "numerators"):
                table_part = torch.from_numpy(getattr(part, name))
                self.register_buffer(f"_{side}_{name}", table_part, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D] -> [B, D(D+1)/2, O]: the windows that exist, by duration, then start.

        In the dense layer a window that does not exist holds `bias` alone. fp16 and bf16 inputs
        are gathered in fp32.

        Raises:
            ValueError: x is of another shape.
        """
        return torch.cat(list(self.blocks(x)), dim=2)

    def blocks(self, x: Tensor) -> Iterator[Tensor]:
        """What `forward` gives, [B, D(D+1)/2, `channel_blocks`] at a time.

        On a CPU, who reduces the channels at once never holds all of them with their gradients.

        Raises:
            ValueError: x is of another shape.
        """
        if x.dim() != 3 or x.shape[2] != self.num_bins:
            raise ValueError(f"x must be [B, C, {self.num_bins}], got shape {tuple(x.shape)}")
        sizes = self.channel_blocks(x.device)
        tables = [
            self.get_buffer(f"_{side}_{name}")
            for side in ("forward", "backward")
            for name in ("offsets", "indices", "numerators")
        ]
        projected = x.transpose(1, 2) @ self.weight.flatten(1)
        if projected.dtype in (torch.float16, torch.bfloat16):
            projected = projected.float()
        rows = projected.reshape(len(x), -1, self.weight.shape[2])
        blocks = zip(torch.split(rows, sizes, dim=2), torch.split(self.bias, sizes), strict=True)
        for block, bias in blocks:
            windows: Tensor = _GatherWindows.apply(block.contiguous(), self._denominator, *tables)
            yield windows.add_(bias)

    def channel_blocks(self, device: torch.device) -> list[int]:
        """Sizes of the blocks that the O channels are gathered in on a device."""
        num_channels = self.weight.shape[2]
        size = CPU_BLOCK if device.type == "cpu" else num_channels
        return [min(size, num_channels - first) for first in range(0, num_channels, size)]
