"""Average recall of proposals, equal to the official ActivityNet toolkit to the last bit.

Source: activitynet/ActivityNet, `Evaluation/eval_proposal.py`.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from tfn_models.metrics.columns import (
    TIOUS,
    Floats,
    Ints,
    ScoredSegments,
    Segments,
    check_tious,
    lookup,
    paired_iou,
    rank_in_groups,
)

NUM_POINTS = 100
"""Points of the curve of average recall over the average number of proposals (AR-AN)."""

PAIRS_AT_ONCE = 2**16
"""Pairs of a ground truth and a proposal that are compared together: few enough for the cache."""


@dataclass(frozen=True, eq=False)
class ProposalRecall:
    """The AR-AN curve.

    `tious` [n_tiou], `proposals_per_video` [100] (AN, on average), `recall` [n_tiou, 100] and
    `average_recall` [100] as fractions, `auc` as the percentage that the toolkit prints.
    """

    tious: Floats
    proposals_per_video: Floats
    recall: Floats
    average_recall: Floats
    auc: float

    def __post_init__(self) -> None:
        """ValueError: fields whose shapes do not belong together."""
        if self.recall.shape != (len(self.tious), NUM_POINTS):
            raise ValueError(
                f"recall must be [n_tiou, 100] = {[len(self.tious), NUM_POINTS]}, "
                f"got {list(self.recall.shape)}"
            )
        for name in ("proposals_per_video", "average_recall"):
            if getattr(self, name).shape != (NUM_POINTS,):
                raise ValueError(f"{name} must be [100], got {list(getattr(self, name).shape)}")

    def at(self, num_proposals: float) -> float:
        """Average recall, as a fraction, at `num_proposals` a video on average.

        Raises:
            ValueError: the curve has no such point.
        """
        point = int(np.abs(self.proposals_per_video - num_proposals).argmin())
        if not np.isclose(self.proposals_per_video[point], num_proposals, rtol=1e-9):
            low, high = self.proposals_per_video[0], self.proposals_per_video[-1]
            raise ValueError(
                f"num_proposals must be a point of the curve, {low:g} to {high:g} in steps of "
                f"{low:g}, got {num_proposals}"
            )
        return float(self.average_recall[point])


def proposal_recall(
    ground_truth: Segments,
    proposals: ScoredSegments,
    *,
    tious: Floats = TIOUS,
    max_average: float = 100,
) -> ProposalRecall:
    """Recall of the ground truth by the best proposals of each video; labels play no part.

    Each video gives the same share of its proposals, so that they are `max_average` a video on
    average (all of them, where there are fewer); point j of the curve takes j per cent of
    `max_average`. The share is reckoned over all proposals handed in, also those in videos without
    ground truth. Equal scores rank as in the toolkit.

    Shapes: `ground_truth` [G], `proposals` [N], `tious` [n_tiou], in any order. Times may have any
    one unit, `max_average` is in proposals a video.

    Raises:
        ValueError: no ground truth, thresholds outside (0, 1], or a `max_average` that is not
            positive.
    """
    tious = check_tious(tious)
    if len(ground_truth) == 0:
        raise ValueError("the ground truth holds no segment; recall needs one or more")
    if not (np.isfinite(max_average) and max_average > 0):
        raise ValueError(f"max_average must be positive and finite, got {max_average}")
    videos, gt_video = np.unique(ground_truth.video, return_inverse=True)
    video = lookup(proposals.video, videos)
    counted = np.flatnonzero(video >= 0)
    order, first = rank_in_groups(video[counted], proposals.score[counted], num_groups=len(videos))
    available = np.diff(first)
    target_total = max_average * float(len(videos))
    ratio = target_total / max(len(proposals), 1)
    used = np.minimum((available * ratio).astype(np.int64), available)
    # With not one proposal to use, every share gives recall 0; the toolkit would divide by zero.
    total_used = float(used.sum()) or target_total
    shares = np.arange(1, NUM_POINTS + 1) / 100.0 * (target_total / total_used)
    hits = _first_hits(
        ground_truth,
        proposals,
        ranked=counted[order],
        start=first[gt_video],
        count=used[gt_video],
        tious=tious,
    )
    found = [_found_at_points(hit, count=used[gt_video], shares=shares) for hit in hits]
    recall = np.stack(found) / float(len(ground_truth))
    average_recall = recall.mean(axis=0)
    proposals_per_video = shares * (total_used / len(videos))
    area = _trapezoids(proposals_per_video, average_recall)
    return ProposalRecall(
        tious=tious,
        proposals_per_video=proposals_per_video,
        recall=recall,
        average_recall=average_recall,
        auc=float(100.0 * area / proposals_per_video[-1]),
    )


def _trapezoids(x: Floats, y: Floats) -> float:
    """Area under the line through the points; `numpy.trapz`, which numpy 2 renamed, bit for bit."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2.0))


def _first_hits(
    ground_truth: Segments,
    proposals: ScoredSegments,
    *,
    ranked: Ints,
    start: Ints,
    count: Ints,
    tious: Floats,
) -> list[Ints]:
    """For each threshold, [G]: the rank in its video of the first proposal that reaches it.

    `ranked` are rows of the proposals by video and falling score; those of ground truth g are
    `count[g]` from position `start[g]`. A ground truth that none reaches gets the rank `count[g]`.
    """
    starts, ends = proposals.start[ranked], proposals.end[ranked]
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count)])
    cuts = np.searchsorted(before, np.arange(PAIRS_AT_ONCE, before[-1], PAIRS_AT_ONCE))
    hits = [count.copy() for _ in tious]
    for low, high in itertools.pairwise([0, *np.unique(cuts).tolist(), len(count)]):
        goal = np.repeat(np.arange(low, high), count[low:high])
        rank = np.arange(before[low], before[high]) - before[goal]
        position = start[goal] + rank
        iou = paired_iou(
            target_start=ground_truth.start[goal],
            target_end=ground_truth.end[goal],
            start=starts[position],
            end=ends[position],
        )
        near = np.flatnonzero(iou >= tious.min())[::-1]
        goal, rank, iou = goal[near], rank[near], iou[near]
        for hit, tiou in zip(hits, tious, strict=True):
            reached = iou >= tiou
            # From the last rank to the first, so that the first is what stays.
            hit[goal[reached]] = rank[reached]
    return hits


def _found_at_points(hit: Ints, *, count: Ints, shares: Floats) -> Ints:
    """How many ground truths each point of the curve finds: [100].

    Ground truth g is found where more than `hit[g]` of the `count[g]` proposals of its video are
    taken. How many those are depends on `count[g]` alone and grows from point to point, so one
    search in all such rows, laid end to end, gives the first point that finds g.
    """
    counts, row = np.unique(count, return_inverse=True)
    taken = np.minimum((counts[:, None] * shares).astype(np.int64), counts[:, None])
    offsets = np.arange(len(counts)) * (counts[-1] + 1)
    rows = (taken + offsets[:, None]).ravel()
    point = np.searchsorted(rows, hit + offsets[row], side="right") - row * NUM_POINTS
    return np.cumsum(np.bincount(point, minlength=NUM_POINTS + 1)[:NUM_POINTS])
