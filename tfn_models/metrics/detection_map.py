"""Mean average precision of detections, equal to the official ActivityNet toolkit to the last bit.

Source: activitynet/ActivityNet, `Evaluation/eval_detection.py`. The toolkit walks the predictions
one by one; here each temporal IoU threshold is a stable matching, solved for all videos and classes
at once.
"""

from dataclasses import dataclass

import numpy as np

from tfn_models.metrics.columns import (
    TIOUS,
    Bools,
    Floats,
    Ints,
    ScoredSegments,
    Segments,
    check_tious,
    lookup,
    paired_iou,
    rank_in_groups,
)


@dataclass(frozen=True, eq=False)
class DetectionMap:
    """Average precision as fractions, over the K classes that have ground truth.

    `tious` [n_tiou], `labels` [K] rising, `ap` [n_tiou, K], `mean_ap` [n_tiou], `average` over all.
    """

    tious: Floats
    labels: Ints
    ap: Floats
    mean_ap: Floats
    average: float

    def __post_init__(self) -> None:
        """ValueError: fields whose shapes do not belong together."""
        if self.ap.shape != (*self.tious.shape, *self.labels.shape):
            raise ValueError(
                f"ap must be [n_tiou, K] = {[len(self.tious), len(self.labels)]}, "
                f"got {list(self.ap.shape)}"
            )
        if self.mean_ap.shape != self.tious.shape:
            raise ValueError(f"mean_ap must be [n_tiou], got {list(self.mean_ap.shape)}")


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs of a prediction and a ground truth that may match, all [n_pairs].

    They are sorted by prediction (best score of its class first) and within one prediction by how
    much it wants the ground truth: falling IoU, ties as in the toolkit.
    """

    prediction: Ints
    ground_truth: Ints
    iou: Floats


def detection_map(
    ground_truth: Segments, predictions: ScoredSegments, *, tious: Floats = TIOUS
) -> DetectionMap:
    """Interpolated average precision of each class at each temporal IoU threshold, and its means.

    Predictions of one class are taken by falling score, and each gets the ground truth of its video
    and class that it overlaps most among those still free. Predictions in videos without ground
    truth count as false, those of classes without ground truth not at all. A class without
    predictions has average precision 0. Equal scores and equal IoUs rank as in the toolkit.

    Shapes: `ground_truth` [G], `predictions` [N], `tious` [n_tiou], in any order. Times may have
    any one unit; results are fractions.

    Raises:
        ValueError: no ground truth, or thresholds outside (0, 1].
    """
    tious = check_tious(tious)
    if len(ground_truth) == 0:
        raise ValueError("the ground truth holds no segment; average precision needs one or more")
    labels, positives = np.unique(ground_truth.label, return_counts=True)
    prediction_class = lookup(predictions.label, labels)
    counted = np.flatnonzero(prediction_class >= 0)
    order, first = rank_in_groups(
        prediction_class[counted], predictions.score[counted], num_groups=len(labels)
    )
    candidates = _find_candidates(
        ground_truth, predictions, ranked=counted[order], lowest_tiou=float(tious.min())
    )
    matched = [_match(candidates, tiou=tiou, num_ground_truths=len(ground_truth)) for tiou in tious]
    ap = _average_precision(matched, first=first, positives=positives)
    mean_ap = ap.mean(axis=1)
    return DetectionMap(
        tious=tious, labels=labels, ap=ap, mean_ap=mean_ap, average=float(mean_ap.mean())
    )


def _find_candidates(
    ground_truth: Segments, predictions: ScoredSegments, *, ranked: Ints, lowest_tiou: float
) -> _Candidates:
    """All pairs of one video and class whose IoU reaches the lowest threshold.

    `ranked` [n] are the rows of the predictions by class and falling score; a candidate's
    `prediction` is a position in it. Predictions that face equally many ground truths make up one
    matrix.
    """
    keys, prediction_key = _group_keys(ground_truth, predictions, ranked=ranked)
    groups, sizes = np.unique(keys, return_counts=True)
    gt_rows = np.argsort(keys, kind="stable")
    first = np.cumsum(sizes) - sizes
    group = lookup(prediction_key, groups)
    facing = np.flatnonzero(group >= 0)
    group = group[facing]
    size = sizes[group]
    pieces = []
    for num_gt in np.unique(sizes):
        chosen = np.flatnonzero(size == num_gt)
        position = facing[chosen]
        rows = ranked[position]
        columns = gt_rows[first[group[chosen]][:, None] + np.arange(num_gt)]
        iou = paired_iou(
            target_start=ground_truth.start[columns],
            target_end=ground_truth.end[columns],
            start=predictions.start[rows][:, None],
            end=predictions.end[rows][:, None],
        )
        near = np.flatnonzero(_reaches(iou, lowest_tiou).any(axis=1))
        iou, columns, position = iou[near], columns[near], position[near]
        wish = np.argsort(iou, axis=1)[:, ::-1]
        iou = np.take_along_axis(iou, wish, axis=1)
        keep = _reaches(iou, lowest_tiou)
        wanted = np.take_along_axis(columns, wish, axis=1)
        prediction = np.broadcast_to(position[:, None], iou.shape)
        pieces.append(
            _Candidates(prediction=prediction[keep], ground_truth=wanted[keep], iou=iou[keep])
        )
    return _join(pieces)


def _group_keys(
    ground_truth: Segments, predictions: ScoredSegments, *, ranked: Ints
) -> tuple[Ints, Ints]:
    """One number for each pair of class and video: [G] of the ground truth, [n] of the predictions.

    Predictions in videos without ground truth get -1.
    """
    videos, gt_video = np.unique(ground_truth.video, return_inverse=True)
    labels, gt_label = np.unique(ground_truth.label, return_inverse=True)
    video = lookup(predictions.video[ranked], videos)
    label = lookup(predictions.label[ranked], labels)
    keys = gt_label * len(videos) + gt_video
    return keys, np.where(video >= 0, label * len(videos) + video, -1)


def _join(pieces: list[_Candidates]) -> _Candidates:
    prediction = np.concatenate([piece.prediction for piece in pieces])
    order = np.argsort(prediction, kind="stable")
    return _Candidates(
        prediction=prediction[order],
        ground_truth=np.concatenate([piece.ground_truth for piece in pieces])[order],
        iou=np.concatenate([piece.iou for piece in pieces])[order],
    )


def _reaches(iou: Floats, tiou: float) -> Bools:
    """Whether a pair may match; NaN (twice one instant) may, as the toolkit asks `iou < tiou`."""
    return ~(iou < tiou)


def _match(candidates: _Candidates, *, tiou: float, num_ground_truths: int) -> Ints:
    """Positions, rising, of the predictions that get a ground truth at this threshold.

    Every prediction asks for the ground truth it wants most; a ground truth keeps its best-ranked
    asker, the others ask for their next. As all ground truths rank the predictions alike, this
    ends where taking the predictions one by one does (Gale & Shapley 1962), in a few rounds for all
    videos together.
    """
    keep = np.flatnonzero(_reaches(candidates.iou, tiou))
    prediction, wanted = candidates.prediction[keep], candidates.ground_truth[keep]
    num_pairs = len(keep)
    is_first = np.diff(prediction, prepend=-1) != 0
    may_go_on = np.append(~is_first[1:], False)
    holder = np.full(num_ground_truths, num_pairs)
    asking = np.flatnonzero(is_first)
    while asking.size:
        goals = wanted[asking]
        before = holder[goals]
        np.minimum.at(holder, goals, asking)
        won = holder[goals] == asking
        displaced = before[won]
        losers = np.concatenate([asking[~won], displaced[displaced < num_pairs]])
        asking = losers[may_go_on[losers]] + 1
    return np.sort(prediction[holder[holder < num_pairs]])


def _average_precision(matched: list[Ints], *, first: Ints, positives: Ints) -> Floats:
    """Area under the interpolated precision-recall curve of each threshold and class: [n_tiou, K].

    `matched` are, a threshold each, the rising positions of the predictions that are right, and
    class k holds the positions from `first[k]` to `first[k + 1]`, and `positives[k]` ground truths.
    Between two right predictions recall stands still and precision falls, so that the curve is
    known from these alone. Curves with equally many of them make up one matrix, row by row summed
    as each would be on its own.
    """
    bounds = np.stack([np.searchsorted(found, first) for found in matched])
    counts = np.diff(bounds).ravel()
    begins = np.cumsum(counts) - counts
    ranks = np.concatenate(matched) - np.repeat(np.tile(first[:-1], len(matched)), counts)
    wanted = np.tile(positives, len(matched))
    ap = np.zeros(len(counts))
    # The toolkit's curve ends at recall 1, precision 0: a zero, but `sum` groups by the count.
    lengths = counts + (counts < wanted)
    for count, length in np.unique(np.stack([counts, lengths])[:, counts > 0], axis=1).T:
        curves = np.flatnonzero((counts == count) & (lengths == length))
        hits = np.arange(1, count + 1)
        precision = hits / (ranks[begins[curves][:, None] + np.arange(count)] + 1.0)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall_steps = np.diff(hits / wanted[curves][:, None], prepend=0.0, axis=1)
        areas = np.zeros((len(curves), length))
        areas[:, :count] = recall_steps * precision
        ap[curves] = np.sum(areas, axis=1)
    return ap.reshape(len(matched), len(positives))
