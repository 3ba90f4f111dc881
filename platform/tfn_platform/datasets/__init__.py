"""Annotation formats: a function each, from a path to annotated videos.

The made-up data set of `synthetic.py` is written in the ActivityNet layout and read like any other.
"""

from collections.abc import Callable
from pathlib import Path

from tfn_platform.datasets.activitynet import read_activitynet
from tfn_platform.datasets.activitynet_bmn import read_activitynet_bmn
from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.csv_table import read_csv_table
from tfn_platform.datasets.thumos14 import read_thumos14

__all__ = ["DATASETS", "AnnotatedVideo", "LabelledSegment", "read_dataset"]

DATASETS: dict[str, Callable[[Path], list[AnnotatedVideo]]] = {
    "activitynet": read_activitynet,
    "activitynet_bmn": read_activitynet_bmn,
    "csv": read_csv_table,
    "hacs": read_activitynet,
    "thumos14": read_thumos14,
}


def read_dataset(name: str, path: Path) -> list[AnnotatedVideo]:
    """Read `path` in the format called `name`."""
    if name not in DATASETS:
        raise ValueError(f"dataset format must be one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name](path)
