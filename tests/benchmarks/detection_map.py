"""mAP of as many videos and classes as HACS validation has, against one prediction at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.measure import Comparison
from tests.benchmarks.proposal_recall import make_case
from tfn_models.metrics import TIOUS, DetectionMap, ScoredSegments, Segments, detection_map

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Table = TypeVar("Table", Segments, ScoredSegments)

NUM_VIDEOS = 5_981
NUM_CLASSES = 200


def comparisons(*, small: bool) -> list[Comparison]:
    """All videos; the textbook sides do the first few of the classes.

    Twice the same walk from prediction to prediction: on plain arrays, and on the data frames that
    the official toolkit keeps its tables in (only where pandas is installed).
    """
    num_videos, num_classes = (40, 4) if small else (NUM_VIDEOS, NUM_CLASSES)
    truth, found = make_labelled_case(num_videos, num_classes=num_classes)

    def comparison(
        walk: Callable[[Segments, ScoredSegments], Array], *, classes: int, goal: float, how: str
    ) -> Comparison:
        share = float((found.label < classes).mean())
        return Comparison(
            name=f"mAP, {num_videos:,} videos x 100 detections, {num_classes} classes; {how}",
            ours=lambda: detection_map(truth, found),
            textbook=lambda: loop_map(truth, found, classes=classes, walk=walk),
            check=_check,
            goal=goal,
            textbook_share=share,
            note=f"one prediction at a time, on {how}; {classes} of {num_classes} classes",
        )

    on_arrays = comparison(right_on_arrays, classes=2 if small else 10, goal=25.0, how="arrays")
    if importlib.util.find_spec("pandas") is None:
        return [on_arrays]
    return [on_arrays, comparison(right_on_frames, classes=2, goal=500.0, how="data frames")]


def make_labelled_case(num_videos: int, *, num_classes: int) -> tuple[Segments, ScoredSegments]:
    """One class a video; its detections carry one to three classes, mostly its own among them."""
    rng = np.random.default_rng(1)
    truth, found = make_case(num_videos)
    video_class = rng.permutation(np.arange(num_videos) % num_classes)
    # The three classes that a classifier finds likeliest in a video, and how many of them count.
    likely = rng.integers(0, num_classes, (num_videos, 3))
    own = rng.choice([0, 1, 2, 3], p=[0.9, 0.05, 0.03, 0.02], size=num_videos)
    right = own < 3
    likely[right, own[right]] = video_class[right]
    choice = (rng.random(len(found)) * rng.integers(1, 4, num_videos)[found.video]).astype(int)
    score = np.round(found.score * np.array([0.8, 0.15, 0.05])[choice], 4)
    return (
        Segments(**(vars(truth) | {"label": video_class[truth.video]})),
        ScoredSegments(**(vars(found) | {"label": likely[found.video, choice], "score": score})),
    )


def loop_map(
    truth: Segments,
    found: ScoredSegments,
    *,
    classes: int,
    walk: Callable[[Segments, ScoredSegments], Array],
) -> Array:
    """Average precision of the first classes at every threshold: [n_tiou, classes].

    `walk` says of each prediction of a class, best score first, whether it is right at each
    threshold: [n_tiou, P].
    """
    ap = []
    for label in range(classes):
        goals, predictions = of_class(truth, label), of_class(found, label)
        hits = np.cumsum(walk(goals, predictions), axis=1)
        precision = hits / np.arange(1, len(predictions) + 1)
        recall = hits / len(goals)
        ap.append([_area(p, r) for p, r in zip(precision, recall, strict=True)])
    return np.array(ap).T


def right_on_arrays(truth: Segments, found: ScoredSegments) -> Array:
    """The walk with numpy: a video's actions are picked by comparing the column of videos."""
    taken = np.zeros((len(TIOUS), len(truth)), dtype=np.bool_)
    right = np.zeros((len(TIOUS), len(found)))
    for rank, row in enumerate(found.score.argsort()[::-1]):
        actions = np.flatnonzero(truth.video == found.video[row])
        if len(actions):
            iou = _iou(found.start[row], found.end[row], truth.start[actions], truth.end[actions])
            _take_best(iou, actions, taken=taken, right=right[:, rank])
    return right


def right_on_frames(truth: Segments, found: ScoredSegments) -> Array:
    """The walk with pandas: a video's actions are a group of a data frame."""
    import pandas as pd

    goals, predictions = pd.DataFrame(vars(truth)), pd.DataFrame(vars(found))
    by_video = goals.groupby("video")
    best_first = predictions.loc[predictions["score"].to_numpy().argsort()[::-1]]
    taken = np.zeros((len(TIOUS), len(truth)), dtype=np.bool_)
    right = np.zeros((len(TIOUS), len(found)))
    for rank, (_, prediction) in enumerate(best_first.iterrows()):
        try:
            actions = by_video.get_group(prediction["video"])
        except KeyError:
            continue
        starts, ends = actions[["start", "end"]].to_numpy().T
        iou = _iou(prediction["start"], prediction["end"], starts, ends)
        _take_best(iou, actions.index.to_numpy(), taken=taken, right=right[:, rank])
    return right


def _take_best(iou: Array, actions: NDArray[np.int64], *, taken: Bools, right: Array) -> None:
    """At each threshold, give a prediction the action that it overlaps most of those still free."""
    best_first = iou.argsort()[::-1]
    for threshold, tiou in enumerate(TIOUS):
        for near in best_first:
            if iou[near] < tiou:
                break
            if not taken[threshold, actions[near]]:
                taken[threshold, actions[near]] = True
                right[threshold] = 1.0
                break


def _iou(start: float, end: float, starts: Array, ends: Array) -> Array:
    """IoU of one prediction with each of some actions."""
    overlap = (np.minimum(end, ends) - np.maximum(start, starts)).clip(0)
    union = (ends - starts) + (end - start) - overlap
    return overlap / union


def _area(precision: Array, recall: Array) -> float:
    """Area under the interpolated precision-recall curve."""
    precision = np.hstack([[0.0], precision, [0.0]])
    recall = np.hstack([[0.0], recall, [1.0]])
    for point in range(len(precision) - 1)[::-1]:
        precision[point] = max(precision[point], precision[point + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def of_class(table: Table, label: int) -> Table:
    """The rows of one class."""
    return replace(
        table, **{key: column[table.label == label] for key, column in vars(table).items()}
    )


def _check(ours: object, textbook: object) -> None:
    """The textbook's classes are the first of ours."""
    assert isinstance(ours, DetectionMap)
    assert isinstance(textbook, np.ndarray)
    assert np.array_equal(ours.labels[: textbook.shape[1]], np.arange(textbook.shape[1]))
    assert np.array_equal(ours.ap[:, : textbook.shape[1]], textbook)
