"""The annotated videos of one subset, numbered, whether their files could be used or not."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfn_models.metrics.columns import ScoredSegments, Segments
from tfn_platform.parquet import read_table
from tfn_platform.store import StageFolder
from tfn_platform.tables import ANNOTATIONS


@dataclass(frozen=True)
class GroundTruth:
    """Segments of the V annotated videos of a subset, and the names that the numbers mean."""

    video_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    segments: Segments

    def labels_of_videos(self) -> list[set[int]]:
        """The set of classes of each video."""
        labels: dict[int, set[int]] = defaultdict(set)
        for video, label in zip(self.segments.video, self.segments.label, strict=True):
            labels[int(video)].add(int(label))
        return [labels[video] for video in range(len(self.video_ids))]

    def number(self, predictions: pa.Table) -> ScoredSegments:
        """PROPOSALS or DETECTIONS as columns of numbers; proposals get the label 0.

        A video that has no ground truth gets a number beyond V, a class a number beyond K.
        """
        labels = np.zeros(predictions.num_rows, dtype=np.int64)
        if "label" in predictions.schema.names:
            labels = _numbers(predictions["label"].to_pylist(), self.class_names)
        return ScoredSegments(
            video=_numbers(predictions["video_id"].to_pylist(), self.video_ids),
            label=labels,
            start=predictions["start_seconds"].to_numpy(),
            end=predictions["end_seconds"].to_numpy(),
            score=predictions["score"].to_numpy(),
        )


def read_ground_truth(
    prepared: StageFolder, *, subset: str, class_names: Sequence[str]
) -> GroundTruth:
    """Read ANNOTATIONS; the trained classes keep their numbers, others that occur follow them."""
    table, _ = read_table(prepared, ANNOTATIONS)
    table = table.filter(pc.equal(table["subset"], subset))
    found = sorted(set(table["label"].to_pylist()) - set(class_names))
    names = (*class_names, *found)
    video_ids = tuple(sorted(set(table["video_id"].to_pylist())))
    return GroundTruth(
        video_ids,
        names,
        Segments(
            video=_numbers(table["video_id"].to_pylist(), video_ids),
            label=_numbers(table["label"].to_pylist(), names),
            start=table["start_seconds"].to_numpy(),
            end=table["end_seconds"].to_numpy(),
        ),
    )


def _numbers(names: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    number = {name: position for position, name in enumerate(known)}
    return np.array([number.get(name, len(known)) for name in names], dtype=np.int64)
