"""The usable videos with their segments and class numbers, read from the tables."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from tfn_platform.parquet import read_table
from tfn_platform.store import StageFolder
from tfn_platform.tables import ANNOTATIONS, VIDEOS


@dataclass(frozen=True)
class LabelledVideo:
    """A video with its actions.

    Attributes:
        video_id: its name.
        uri: its file; empty for a video that could not be used.
        subset: such as training.
        duration_seconds: as its header says.
        labels: class number of each segment.
        segments: [G, 2] float64, seconds.
    """

    video_id: str
    uri: str
    subset: str
    duration_seconds: float
    labels: tuple[int, ...]
    segments: torch.Tensor

    @property
    def main_label(self) -> int:
        """The class with the most annotated seconds: what a video-level classifier should say."""
        seconds: dict[int, float] = defaultdict(float)
        for label, (start, end) in zip(self.labels, self.segments.tolist(), strict=True):
            seconds[label] += end - start
        return max(seconds, key=lambda label: (seconds[label], -label))

    def segments_of_at_least(self, seconds: float) -> torch.Tensor:
        """The segments that are not shorter than `seconds`."""
        return self.segments[self.segments[:, 1] - self.segments[:, 0] >= seconds]


@dataclass(frozen=True)
class LabelledVideos:
    """All usable videos with at least one segment, by video_id, and the names of the classes."""

    class_names: tuple[str, ...]
    videos: tuple[LabelledVideo, ...]

    def of_subset(self, subset: str) -> tuple[LabelledVideo, ...]:
        """The videos of one subset."""
        return tuple(video for video in self.videos if video.subset == subset)


def read_labelled_videos(prepared: StageFolder, *, training_subset: str) -> LabelledVideos:
    """Read VIDEOS and ANNOTATIONS; the classes are those of the training subset.

    A segment of a class that is never trained on cannot be learned: it is left out here, and still
    counts as ground truth in the evaluation.
    """
    videos, _ = read_table(prepared, VIDEOS)
    annotations, _ = read_table(prepared, ANNOTATIONS)
    segments = defaultdict(list)
    for row in annotations.to_pylist():
        segments[row["video_id"]].append((row["label"], row["start_seconds"], row["end_seconds"]))
    rows = sorted(videos.to_pylist(), key=lambda row: row["video_id"])
    class_names = sorted(
        {
            label
            for row in rows
            if row["subset"] == training_subset
            for label, _, _ in segments[row["video_id"]]
        }
    )
    number = {name: position for position, name in enumerate(class_names)}
    labelled = []
    for row in rows:
        known = [part for part in segments[row["video_id"]] if part[0] in number]
        if known:
            labelled.append(
                LabelledVideo(
                    row["video_id"],
                    row["uri"],
                    row["subset"],
                    row["duration_seconds"],
                    tuple(number[label] for label, _, _ in known),
                    torch.from_numpy(np.array([part[1:] for part in known], dtype=np.float64)),
                )
            )
    return LabelledVideos(tuple(class_names), tuple(labelled))
