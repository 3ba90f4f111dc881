"""Score a prediction file against a ground-truth file, both in the ActivityNet layout.

    {"database": {VIDEO: {"subset": NAME, "annotations": [{"label": NAME, "segment": [0.0, 1.0]}]}}}
    {"results": {VIDEO: [{"label": NAME, "segment": [0.0, 1.0], "score": 0.5}]}}

The figures are those of the official ActivityNet toolkit, except that no video is blocked by a list
on a server. Nothing damaged is skipped: a file that does not say what it should is refused.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tfn_models.metrics import (
    TIOUS,
    ScoredSegments,
    Segments,
    detection_map,
    proposal_recall,
    top_k_accuracy,
)
from tfn_platform.errors import DataError

Task = Literal["detection", "proposals", "classification"]
TOP_K = (1, 5)
PROPOSALS_PER_VIDEO = (1, 5, 10, 100)


@dataclass(frozen=True)
class FileEvaluation:
    """What came out, and of how much."""

    task: Task
    subset: str
    figures: dict[str, float]
    """Fractions in 0..1, except `auc_percent` in 0..100."""
    average_precision: dict[str, float]
    """Of each class with ground truth, over all tIoU thresholds; empty for the other tasks."""
    num_videos: int
    """Videos of the subset that have ground truth."""
    num_ground_truths: int
    num_predictions: int
    """All in the file."""
    num_missing_videos: int
    """Videos with ground truth but without a prediction; each counts as missed."""
    num_unknown_videos: int
    """Videos with predictions but without ground truth. Their detections count as false."""

    def to_json(self) -> dict[str, Any]:
        """Everything, for `json.dump`."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of what a person wants to see, counts first."""
        counts = [
            ("task", self.task),
            ("subset", self.subset),
            ("videos with ground truth", str(self.num_videos)),
            ("  of them without a prediction", str(self.num_missing_videos)),
            ("ground truths", str(self.num_ground_truths)),
            ("predictions", str(self.num_predictions)),
            ("videos with predictions only", str(self.num_unknown_videos)),
        ]
        return counts + [(name, f"{value:.4f}") for name, value in self.figures.items()]


@dataclass(frozen=True)
class _Entry:
    """One annotation or result; what its task does not need is empty or 0."""

    video: str
    label: str
    start: float
    end: float
    score: float


def evaluate_files(
    ground_truth: Path, predictions: Path, *, task: Task, subset: str | None = None
) -> FileEvaluation:
    """Score `predictions` on one subset of `ground_truth`, the only one there is if None.

    Predicted labels that the ground truth does not have are not counted. DataError says what is
    wrong with a file: not there, no JSON, a key missing, a subset unknown, NaN, a reversed segment.
    """
    if task not in get_args(Task):
        raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {task!r}")
    database = _read_top(ground_truth, key="database")
    subset = _choose_subset(database, subset=subset, path=ground_truth)
    truths = _read_truths(database, subset=subset, task=task, path=ground_truth)
    if not truths:
        raise DataError(f"{ground_truth}: no video of subset {subset!r} has an annotation")
    results = _read_results(_read_top(predictions, key="results"), task=task, path=predictions)
    figures, average_precision = _SCORERS[task](truths, results)
    truth_videos = {entry.video for entry in truths}
    result_videos = {entry.video for entry in results}
    return FileEvaluation(
        task=task,
        subset=subset,
        figures=figures,
        average_precision=average_precision,
        num_videos=len(truth_videos),
        num_ground_truths=len(truths),
        num_predictions=len(results),
        num_missing_videos=len(truth_videos - result_videos),
        num_unknown_videos=len(result_videos - truth_videos),
    )


_Scores = tuple[dict[str, float], dict[str, float]]


def _score_detection(truths: list[_Entry], results: list[_Entry]) -> _Scores:
    """Figures and per-class precision; classes are numbered as the toolkit does, as they come."""
    segments, scored, label_ids = _to_columns(truths, results)
    result = detection_map(segments, scored)
    figures = {
        f"map_at_{tiou:.2f}": float(value)
        for tiou, value in zip(TIOUS, result.mean_ap, strict=True)
    }
    names = list(label_ids)
    per_class = {
        names[label]: float(value)
        for label, value in zip(result.labels, result.ap.mean(axis=0), strict=True)
    }
    return figures | {"average_map": result.average}, per_class


def _score_proposals(truths: list[_Entry], results: list[_Entry]) -> _Scores:
    segments, scored, _ = _to_columns(truths, results)
    result = proposal_recall(segments, scored)
    figures = {f"average_recall_at_{num}": result.at(num) for num in PROPOSALS_PER_VIDEO}
    return figures | {"auc_percent": result.auc}, {}


def _score_classification(truths: list[_Entry], results: list[_Entry]) -> _Scores:
    """A video counts as right if one of its labels is among the best k predicted for it."""
    videos = _number(entry.video for entry in truths)
    labels = _number(entry.label for entry in [*truths, *results])
    scores = np.full((len(videos), len(labels)), -np.inf)
    for entry in results:
        if entry.video in videos:
            row, column = videos[entry.video], labels[entry.label]
            scores[row, column] = max(scores[row, column], entry.score)
    true_labels: list[set[int]] = [set() for _ in videos]
    for entry in truths:
        true_labels[videos[entry.video]].add(labels[entry.label])
    figures = {
        f"top{k}_accuracy": top_k_accuracy(scores, true_labels, k=min(k, len(labels)))
        for k in TOP_K
    }
    return figures, {}


_SCORERS: dict[Task, Callable[[list[_Entry], list[_Entry]], _Scores]] = {
    "detection": _score_detection,
    "proposals": _score_proposals,
    "classification": _score_classification,
}


def _to_columns(
    truths: list[_Entry], results: list[_Entry]
) -> tuple[Segments, ScoredSegments, dict[str, int]]:
    videos = _number(entry.video for entry in [*truths, *results])
    labels = _number(entry.label for entry in [*truths, *results])

    def columns(entries: list[_Entry]) -> dict[str, Any]:
        return {
            "video": np.array([videos[entry.video] for entry in entries], dtype=np.int64),
            "label": np.array([labels[entry.label] for entry in entries], dtype=np.int64),
            "start": np.array([entry.start for entry in entries], dtype=np.float64),
            "end": np.array([entry.end for entry in entries], dtype=np.float64),
        }

    score = np.array([entry.score for entry in results], dtype=np.float64)
    return Segments(**columns(truths)), ScoredSegments(**columns(results), score=score), labels


def _number(names: Iterable[str]) -> dict[str, int]:
    """Numbers in the order in which the names first come."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _read_top(path: Path, *, key: str) -> dict[str, Any]:
    """The JSON object under `key` at the top of a file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON text: {error}") from error
    value = _get(content, key, where=str(path))
    if not isinstance(value, dict):
        raise DataError(f'{path}: "{key}" must be an object by video, got {_kind(value)}')
    return value


def _choose_subset(database: dict[str, Any], *, subset: str | None, path: Path) -> str:
    subsets = {
        str(_get(video, "subset", where=f"{path}: database[{video_id!r}]"))
        for video_id, video in database.items()
    }
    known = ", ".join(sorted(subsets)) or "none"
    if subset is None and len(subsets) == 1:
        return subsets.pop()
    if subset is None:
        raise DataError(f"{path}: say which subset to score; the file has: {known}")
    if subset not in subsets:
        raise DataError(f"{path}: has no subset {subset!r}; it has: {known}")
    return subset


def _read_truths(database: dict[str, Any], *, subset: str, task: Task, path: Path) -> list[_Entry]:
    entries = []
    for video_id, video in database.items():
        if str(video["subset"]) != subset:
            continue
        where = f"{path}: database[{video_id!r}]"
        annotations = _get(video, "annotations", where=where)
        for item, item_where in _items(annotations, where=f'{where}["annotations"]'):
            entries.append(_read_entry(item, video_id, task=task, scored=False, where=item_where))
    return entries


def _read_results(results: dict[str, Any], *, task: Task, path: Path) -> list[_Entry]:
    entries = []
    for video_id, video in results.items():
        for item, where in _items(video, where=f"{path}: results[{video_id!r}]"):
            entries.append(_read_entry(item, video_id, task=task, scored=True, where=where))
    return entries


def _read_entry(item: Any, video: str, *, task: Task, scored: bool, where: str) -> _Entry:
    label, start, end, score = "", 0.0, 0.0, 0.0
    if task != "proposals":
        label = str(_get(item, "label", where=where))
    if task != "classification":
        segment = _get(item, "segment", where=where)
        if not isinstance(segment, list) or len(segment) != 2:
            raise DataError(f"{where}: segment must be [start, end], got {segment!r}")
        start, end = (_to_number(value, name="segment", where=where) for value in segment)
        if end < start:
            raise DataError(f"{where}: segment ends before it starts: {segment!r}")
    if scored:
        score = _to_number(_get(item, "score", where=where), name="score", where=where)
    return _Entry(video=video, label=label, start=start, end=end, score=score)


def _items(values: Any, *, where: str) -> Iterable[tuple[Any, str]]:
    if not isinstance(values, list):
        raise DataError(f"{where}: must be a list, got {_kind(values)}")
    return ((value, f"{where}[{index}]") for index, value in enumerate(values))


def _get(mapping: Any, key: str, *, where: str) -> Any:
    if not isinstance(mapping, dict):
        raise DataError(f'{where}: must be an object with the key "{key}", got {_kind(mapping)}')
    if key not in mapping:
        raise DataError(f'{where}: has no key "{key}"; it has: {_some(list(mapping))}')
    return mapping[key]


def _to_number(value: Any, *, name: str, where: str) -> float:
    """A finite number, also from text: THUMOS'14 writes its segments as strings."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} must be a finite number, got {value!r}")
    return number


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return (shown or "none") + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
