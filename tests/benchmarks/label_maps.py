"""What a BMN should answer for a batch of videos, against a loop over the cells of the maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.measure import Comparison
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BmnTargets

Array = NDArray[np.float64]

BOUNDARY_WIDTH_BINS = 3.0
BATCH_SIZE = 16


def comparisons(*, small: bool) -> list[Comparison]:
    """A training batch at T = D = 200, three actions a video on average."""
    num_bins, batch_size = (12, 3) if small else (200, BATCH_SIZE)
    videos = make_videos(batch_size)
    segments = [torch.from_numpy(video) for video in videos]
    return [
        Comparison(
            name=f"label maps, T={num_bins}, {batch_size} videos",
            ours=lambda: bmn_targets(
                segments, num_bins=num_bins, boundary_width_bins=BOUNDARY_WIDTH_BINS
            ),
            textbook=lambda: [loop_targets(video, num_bins=num_bins) for video in videos],
            check=_check,
            goal=100.0,
            note="loop over (start, end) cells and over bins, numpy over a video's actions",
        )
    ]


def make_videos(number: int) -> list[Array]:
    """Start and end of the actions of each video, in shares of its extent: one [G, 2] a video."""
    rng = np.random.default_rng(0)
    videos = []
    for count in 1 + rng.poisson(2.05, number):
        start = rng.uniform(0.0, 0.85, count)
        videos.append(np.stack([start, start + rng.uniform(0.01, 1.0, count) * (1 - start)], 1))
    return videos


def loop_targets(actions: Array, *, num_bins: int) -> tuple[Array, Array, Array]:
    """Start [D], end [D] and IoU [D, D] (duration, start) of one video."""
    bin_share = 1.0 / num_bins
    iou = np.zeros((num_bins, num_bins))
    for start in range(num_bins):
        for end in range(start, num_bins):
            window = start * bin_share, (end + 1) * bin_share
            iou[end - start, start] = np.max(_iou(*window, actions[:, 0], actions[:, 1]))
    reach = BOUNDARY_WIDTH_BINS * bin_share / 2
    around = np.stack([actions - reach, actions + reach], axis=2)
    starts, ends = np.zeros(num_bins), np.zeros(num_bins)
    for index in range(num_bins):
        low, high = (index - 0.5) * bin_share, (index + 0.5) * bin_share
        starts[index] = np.max(_covered(low, high, around[:, 0, 0], around[:, 0, 1]))
        low, high = low + bin_share, high + bin_share
        ends[index] = np.max(_covered(low, high, around[:, 1, 0], around[:, 1, 1]))
    return starts, ends, iou


def _iou(low: float, high: float, starts: Array, ends: Array) -> Array:
    """IoU of one window with each of some actions."""
    shared = np.maximum(np.minimum(high, ends) - np.maximum(low, starts), 0.0)
    return shared / ((high - low) + (ends - starts) - shared)


def _covered(low: float, high: float, starts: Array, ends: Array) -> Array:
    """The share of one interval that each of some others covers."""
    return np.maximum(np.minimum(high, ends) - np.maximum(low, starts), 0.0) / (high - low)


def _check(ours: object, textbook: object) -> None:
    """Equal to fp32, in which targets are kept."""
    assert isinstance(ours, BmnTargets)
    assert isinstance(textbook, list)
    for got, expected in zip(
        (ours.start, ours.end, ours.iou), zip(*textbook, strict=True), strict=True
    ):
        np.testing.assert_allclose(got.numpy(), np.stack(expected), rtol=0, atol=1.2e-7)
