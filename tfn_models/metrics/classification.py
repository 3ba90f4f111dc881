"""Accuracy of video classifiers, equal to the official ActivityNet toolkit to the last bit.

Source: activitynet/ActivityNet, `Evaluation/eval_classification.py`, hit@k.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfn_models.metrics.columns import Bools, rank_in_groups


def top_k_accuracy(
    scores: ArrayLike, labels: NDArray[np.int64] | Sequence[Collection[int]], *, k: int
) -> float:
    """The share of videos of which a true class is among the k best-scored, 0..1.

    Shapes: `scores` [V, K], in any unit, higher is better; `labels` either [V], one class each, or
    V sets of classes, of which one is enough. A score of minus infinity means "not predicted" and
    is never right. Equal scores rank as the toolkit ranks a video's list of predictions, when that
    is in the order of the classes.

    Raises:
        ValueError: scores that are not [V, K] or hold NaN, k outside 1..K, or labels that are not
            one or more classes in 0..K-1 for each video.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"scores must be [V, K] with V and K at least 1, got {list(table.shape)}")
    if np.isnan(table).any():
        raise ValueError(f"scores must not be NaN, got {int(np.isnan(table).sum())} of them")
    if not 1 <= k <= table.shape[1]:
        raise ValueError(f"k must be in 1..{table.shape[1]} (the number of classes), got {k}")
    is_true = _true_classes(labels, num_videos=table.shape[0], num_classes=table.shape[1])
    video, predicted = np.nonzero(table > -np.inf)
    order, first = rank_in_groups(video, table[video, predicted], num_groups=len(table))
    video, predicted = video[order], predicted[order]
    is_best = np.arange(len(order)) - first[video] < k
    is_right = is_best & is_true[video, predicted]
    return float(np.bincount(video[is_right], minlength=len(table)).astype(np.bool_).mean())


def _true_classes(
    labels: NDArray[np.int64] | Sequence[Collection[int]], *, num_videos: int, num_classes: int
) -> Bools:
    """[V, K]: whether a class is among a video's labels."""
    if len(labels) != num_videos:
        raise ValueError(f"labels must have one entry a video, got {len(labels)} for {num_videos}")
    table = np.zeros((num_videos, num_classes), dtype=np.bool_)
    for video, entry in enumerate(labels):
        classes = list(entry) if isinstance(entry, Collection) else [entry]
        if not classes or not all(
            isinstance(label, int | np.integer) and 0 <= label < num_classes for label in classes
        ):
            raise ValueError(
                f"labels[{video}] must be one or more classes in 0..{num_classes - 1}, got {entry}"
            )
        table[video, classes] = True
    return table
