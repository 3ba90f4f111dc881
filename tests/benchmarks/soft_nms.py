"""Soft-NMS of the windows of one video, against the loops over segments that the field runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tests.benchmarks.measure import Comparison
from tfn_models.bmn.decode import Scoring, decode_proposals
from tfn_models.boundary_maps import BoundaryMaps, valid_cells
from tfn_models.nms import DETECTION_NMS, RECALL_NMS, Kept, SoftNms, soft_nms
from tfn_models.segments import pairwise_iou

Array = NDArray[np.float64]
Rows = list[tuple[float, float, float]]

NUM_BINS = 200
NUM_ACTIONS = 6
VIDEO_SECONDS = 140.0


@dataclass(frozen=True)
class Case:
    """The windows of a video in seconds and their scores, best first, and the rule they get."""

    settings: SoftNms
    segments: Tensor
    scores: Tensor


def comparisons(*, small: bool) -> list[Comparison]:
    """19,900 windows by JJBOY's rule and by TCANet's, all of them on both sides."""
    num_bins = 16 if small else NUM_BINS
    recall = make_case("recall", RECALL_NMS, num_bins=num_bins)
    detection = make_case("detection", DETECTION_NMS, num_bins=num_bins)
    return [
        _comparison("JJBOY's rule", recall, loop_by_pick),
        _comparison("TCANet's rule", detection, loop_by_segment),
    ]


def _comparison(rule: str, case: Case, loop: Callable[[Array, Array, SoftNms], Rows]) -> Comparison:
    segments, scores = case.segments.numpy(), case.scores.numpy()

    def ours() -> Kept:
        return soft_nms(
            case.segments, case.scores, settings=case.settings, video_length=VIDEO_SECONDS
        )

    def check(kept: object, rows: object) -> None:
        assert isinstance(kept, Kept) and isinstance(rows, list)
        expected = torch.tensor(rows, dtype=torch.float64)
        assert len(kept.indices) == min(case.settings.max_outputs, len(scores))
        assert torch.equal(case.segments[kept.indices], expected[:, :2])
        torch.testing.assert_close(kept.scores, expected[:, 2], rtol=1e-12, atol=0)

    return Comparison(
        name=f"soft-NMS, {len(scores):,} candidates, {rule}",
        ours=ours,
        textbook=lambda: loop(segments, scores, case.settings),
        check=check,
        goal=60.0,
        note="IoUs of a pick in numpy, then a loop over lists of segments, as that code has it",
    )


def make_case(scoring: Scoring, settings: SoftNms, *, num_bins: int) -> Case:
    """What decoding makes of smooth maps with noise, near some actions; none ends the video."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    begin = 0.9 * noise(NUM_ACTIONS)
    actions = torch.stack([begin, begin + 0.02 + 0.3 * noise(NUM_ACTIONS) ** 2], dim=1).clamp(max=1)
    bins = torch.arange(num_bins, dtype=torch.float64)
    boundaries = [
        0.1 + 0.7 * torch.exp(-(((bins[:, None] / num_bins - instants) / 0.015) ** 2)).amax(1)
        for instants in actions.unbind(1)
    ]
    start, end = (boundary + 0.1 * noise(num_bins) for boundary in boundaries)
    first, duration = bins.expand(num_bins, num_bins), bins[:, None].expand(num_bins, num_bins)
    windows = torch.stack([first, first + duration + 1], dim=2) / num_bins
    iou = pairwise_iou(windows.flatten(0, 1), actions).amax(1).reshape(num_bins, num_bins)
    bumps = avg_pool2d(noise(1, 1, num_bins, num_bins), 7, stride=1, padding=3)[0, 0] - 0.5
    regression = (0.05 + 0.8 * iou + 0.3 * bumps).clamp(0.001, 0.999) * valid_cells(num_bins)
    classification = torch.sigmoid(8 * (iou - 0.6) + 6 * bumps) * valid_cells(num_bins)
    decoded = decode_proposals(
        BoundaryMaps(start[None], end[None], classification[None], regression[None]),
        scoring=scoring,
        candidates="all",
        extent_seconds=VIDEO_SECONDS,
        video_seconds=VIDEO_SECONDS,
        ends_one_bin_later=True,
    )
    return Case(settings, decoded.segments, decoded.scores)


def loop_by_pick(segments: Array, scores: Array, settings: SoftNms) -> Rows:
    """Take a pick's exponentials at once, and ask each segment whether it decays.

    As JJBOY's BMN and mmaction2 write it; their threshold grows with the pick's width.
    """
    starts, ends, left = list(segments[:, 0]), list(segments[:, 1]), list(scores)
    kept: Rows = []
    while left and len(kept) < settings.max_outputs:
        best = int(np.argmax(left))
        width = (ends[best] - starts[best]) / VIDEO_SECONDS
        iou = _iou(np.array(starts), np.array(ends), starts[best], ends[best])
        decay = np.exp(-np.square(iou) / settings.sigma)
        for index in range(len(left)):
            if index != best:
                if iou[index] > settings.threshold + settings.threshold_per_width * width:
                    left[index] = left[index] * decay[index]
        kept.append((starts.pop(best), ends.pop(best), left.pop(best)))
    return kept


def loop_by_segment(segments: Array, scores: Array, settings: SoftNms) -> Rows:
    """Ask each segment, and take its exponential alone, as TCANet writes it."""
    starts, ends, left = list(segments[:, 0]), list(segments[:, 1]), list(scores)
    kept: Rows = []
    while left and len(kept) < settings.max_outputs:
        best = left.index(max(left))
        iou = _iou(np.array(starts), np.array(ends), starts[best], ends[best])
        for index in range(len(left)):
            if index != best:
                width = (ends[best] - starts[best]) / VIDEO_SECONDS
                if iou[index] > settings.threshold + settings.threshold_per_width * width:
                    exponent = np.power(iou[index], settings.iou_power) / settings.sigma
                    left[index] = left[index] * np.exp(-exponent)
        kept.append((starts.pop(best), ends.pop(best), left.pop(best)))
    return kept


def _iou(starts: Array, ends: Array, start: float, end: float) -> Array:
    """IoU of every segment with one."""
    shared = np.maximum(np.minimum(ends, end) - np.maximum(starts, start), 0.0)
    iou: Array = shared / ((ends - starts) + (end - start) - shared)
    return iou
