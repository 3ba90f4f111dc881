"""Accuracy of video classifiers."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfn_models.metrics.columns import Bools


def top_k_accuracy(
    scores: ArrayLike, labels: NDArray[np.int64] | Sequence[Collection[int]], *, k: int
) -> float:
    """The share of videos of which a true class is among the k best-scored.

    Shapes: `scores` [V, K]; `labels` either [V], one class each, or V sets of classes, of which one
    is enough (the rule of ActivityNet's hit@k). Classes with equal scores rank in the order of
    their numbers. A score of minus infinity means "not predicted" and is never right.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"scores must be [V, K] with V and K at least 1, got {list(table.shape)}")
    if np.isnan(table).any():
        raise ValueError(f"scores must not be NaN, got {int(np.isnan(table).sum())} of them")
    if not 1 <= k <= table.shape[1]:
        raise ValueError(f"k must be in 1..{table.shape[1]} (the number of classes), got {k}")
    is_true = _true_classes(labels, num_videos=table.shape[0], num_classes=table.shape[1])
    best = np.argsort(-table, axis=1, kind="stable")[:, :k]
    right = np.take_along_axis(is_true & (table > -np.inf), best, axis=1)
    return float(right.any(axis=1).mean())


def _true_classes(
    labels: NDArray[np.int64] | Sequence[Collection[int]], *, num_videos: int, num_classes: int
) -> Bools:
    """[V, K]: whether a class is among a video's labels."""
    if len(labels) != num_videos:
        raise ValueError(f"labels must have one entry a video, got {len(labels)} for {num_videos}")
    table = np.zeros((num_videos, num_classes), dtype=np.bool_)
    for video, entry in enumerate(labels):
        classes = list(entry) if isinstance(entry, Collection) else [entry]
        if not classes or any(not 0 <= label < num_classes for label in classes):
            raise ValueError(
                f"labels[{video}] must be one or more classes in 0..{num_classes - 1}, got {entry}"
            )
        table[video, classes] = True
    return table
