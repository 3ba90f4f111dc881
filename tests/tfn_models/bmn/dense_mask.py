"""The dense sampling mask of BMN, written as loops from its definition."""

import math

import torch
from torch import Tensor


def dense_mask(
    num_bins: int, num_samples: int, positions_per_sample: int, *, extra_bins: int = 0
) -> Tensor:
    """The [D, N, D, D] mask (bin, sample, duration, start), position by position.

    `extra_bins` is 0 for windows [t, t + d] and 1 for JJBOY's [t, t + d + 1].
    """
    mask = torch.zeros(num_bins, num_samples, num_bins, num_bins, dtype=torch.float64)
    num_positions = num_samples * positions_per_sample
    for duration in range(num_bins):
        for start in range(num_bins - duration):
            last = start + duration + extra_bins
            length = last - start + 1
            low, high = start - 0.5 * length, last + 0.5 * length
            for number in range(num_positions):
                position = low + (high - low) / (num_positions - 1) * number
                fraction, whole = math.modf(position)
                sample = number // positions_per_sample
                for column, share in ((int(whole), 1 - fraction), (math.ceil(position), fraction)):
                    exists = 0 <= column < num_bins and position > -1
                    if exists:
                        mask[column, sample, duration, start] += share / positions_per_sample
    return mask
