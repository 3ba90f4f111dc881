"""Which candidates overlap one of them, asked again and again."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROUNDING_MARGIN = 1e-3
"""Relative; far more than all the rounding in an IoU, in fp32 too."""
TELLING_IOU = 0.01
"""Below it, a threshold says little more than that something is shared."""


class Candidates:
    """N segments on the CPU, of which some have been taken out.

    In numpy, which compares and gathers in a fraction of torch's time. The arithmetic is that of
    `tfn_models.segments.pairwise_iou`, operation by operation, so an IoU is the same to the last
    bit; but four comparisons with each segment come first, which most do not pass.
    """

    def __init__(self, segments: Tensor, *, added_length: float) -> None:
        """Copy `segments` [N, 2] and add `added_length`, in their unit, to every length."""
        starts, ends = segments.detach().cpu().unbind(1)
        self._starts, self._ends = starts.numpy().copy(), ends.numpy().copy()
        self.lengths = self._ends - self._starts + added_length

    def overlapping(
        self, index: int, *, threshold: float, at_threshold: bool
    ) -> tuple[NDArray[np.int64], Tensor]:
        """Indices [n], in order, of those whose IoU with one is above `threshold`; and IoUs [n].

        With `at_threshold`, an IoU equal to it counts too. An IoU of 0 never does.
        """
        start, end = self._starts[index], self._ends[index]
        near = self._near(float(start), float(end), threshold=float(threshold)).nonzero()[0]
        # What is near shares something, or is a reversed segment whose IoU comes out negative.
        shared = np.minimum(self._ends.take(near), end)
        shared -= np.maximum(self._starts.take(near), start)
        union = self.lengths.take(near)
        union += self.lengths[index]
        union -= shared
        iou = np.divide(shared, union, out=union)
        exceeds = (iou >= threshold) & (iou > 0) if at_threshold else iou > threshold
        if not exceeds.all():
            near, iou = near[exceeds], iou[exceeds]
        return near, torch.from_numpy(iou)

    def take_out(self, index: int) -> None:
        """Let one overlap with nothing from now on."""
        self._starts[index], self._ends[index] = math.inf, -math.inf

    def _near(self, start: float, end: float, *, threshold: float) -> NDArray[np.bool_]:
        """Which have both bounds where an IoU above the threshold puts them; bool [N].

        Above t, at least t of the length is shared, so others start and end so far inside; and the
        union is at most 1 / t of it, so none reaches further out. Nothing overlaps no length.
        """
        length = end - start
        if not length > 0:
            return np.zeros(len(self._starts), dtype=bool)
        if threshold < TELLING_IOU:
            near: NDArray[np.bool_] = self._starts < end
            near &= self._ends > start
            return near
        least = length * threshold * (1 - ROUNDING_MARGIN)
        most = length / threshold * (1 + ROUNDING_MARGIN)
        near = self._starts <= end - least
        near &= self._ends >= start + least
        near &= self._starts >= end - most
        near &= self._ends <= start + most
        return near
