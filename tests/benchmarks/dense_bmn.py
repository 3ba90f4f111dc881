"""A Boundary-Matching Network as textbooks and public code write it: dense, over all cells.

The boundary-matching layer multiplies the sequence with a dense mask [D, N * D * D] and collapses
the N samples with a Conv3d (BMN, Lin et al., 2019, section 3.2); everything after it runs on the
full D x D map.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tfn_models.bmn.model import Bmn, BmnConfig
from tfn_models.boundary_maps import BoundaryMaps, valid_cells


def sampling_mask(num_bins: int, num_samples: int, positions_per_sample: int) -> Tensor:
    """[D, N * D * D] fp32: how sample n of window (d, t) weighs each bin; rows of cells."""
    mask = np.zeros((num_bins, num_samples, num_bins, num_bins), dtype=np.float32)
    for start in range(num_bins):
        for duration in range(num_bins - start):
            mask[:, :, duration, start] = _window_weights(
                start,
                duration + 1,
                num_bins=num_bins,
                num_samples=num_samples,
                positions_per_sample=positions_per_sample,
            )
    return torch.from_numpy(mask.reshape(num_bins, -1))


def _window_weights(
    start: int, length: int, *, num_bins: int, num_samples: int, positions_per_sample: int
) -> np.ndarray:
    """[D, N]: linear interpolation at each position, averaged over the positions of a sample."""
    count = num_samples * positions_per_sample
    low, span = start - 0.5 * length, 2 * length - 1
    weights = np.zeros((num_bins, num_samples))
    for order in range(count):
        position = low + order * span / (count - 1)
        whole, sample = math.trunc(position), order // positions_per_sample
        fraction = max(position - whole, 0.0)
        if position > -1 and 0 <= whole < num_bins:
            weights[whole, sample] += (1 - fraction) / positions_per_sample
        if position > -1 and 0 <= whole + 1 < num_bins:
            weights[whole + 1, sample] += fraction / positions_per_sample
    return weights


class DenseBmn(nn.Module):
    """The same network, computed densely; it takes over the parameters of a `Bmn`."""

    def __init__(self, config: BmnConfig, model: Bmn) -> None:
        super().__init__()
        in_channels, window_channels, channels = config.map_channels
        self.num_bins, self.num_samples = config.num_bins, config.num_samples
        self.base, self.lstm, self.start, self.end = model.base, model.lstm, model.start, model.end
        self.input = model.windows.input
        self.collapse = nn.Conv3d(in_channels, window_channels, (config.num_samples, 1, 1))
        self.head = nn.Sequential(
            nn.Conv2d(window_channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2, 1),
            nn.Sigmoid(),
        )
        mask = sampling_mask(config.num_bins, config.num_samples, config.positions_per_sample)
        self.register_buffer("mask", mask, persistent=False)
        self._take_over(model)

    @torch.no_grad()
    def _take_over(self, model: Bmn) -> None:
        windows = model.windows
        weight = windows.matching.weight.permute(2, 0, 1)
        self.collapse.weight.copy_(weight[..., None, None])
        self.collapse.bias.copy_(windows.matching.bias)
        convolutions = windows.convolutions
        theirs = [windows.reduce, convolutions.first, convolutions.second, windows.output]
        for own, their in zip(self.head[::2], theirs, strict=True):
            own.weight.copy_(their.weight.view_as(own.weight))
            own.bias.copy_(their.bias)

    def forward(self, features: Tensor) -> BoundaryMaps:
        """Features [B, D, F] -> maps."""
        x = self.base(features.transpose(1, 2))
        if self.lstm is not None:
            x = self.lstm(x.transpose(1, 2)).transpose(1, 2)
        sequence = self.input(x).relu()
        shape = (len(x), -1, self.num_samples, self.num_bins, self.num_bins)
        samples = torch.matmul(sequence, self.mask.to(sequence.dtype)).reshape(shape)
        confidences = self.head(self.collapse(samples).relu().squeeze(2))
        confidences = confidences * valid_cells(self.num_bins, device=x.device)
        return BoundaryMaps(
            start=self.start(x),
            end=self.end(x),
            classification=confidences[:, 0],
            regression=confidences[:, 1],
        )
