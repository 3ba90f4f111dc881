"""FEATURES as a Ray data set: one video a row, its features as one array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from tfn_platform.feature_index import FeatureReader, read_index
from tfn_platform.store import StageFolder

COLUMNS = ("video_id", "num_clips", "center_seconds", "features")
VIDEOS_PER_TASK = 16


def features_dataset(
    folder: StageFolder,
    *,
    video_ids: Sequence[str] | None = None,
    columns: Sequence[str] = ("video_id", "features"),
) -> ray.data.Dataset:
    """Read videos as rows of a Ray data set, in tasks of a few videos that lie side by side.

    Args:
        folder: the stage that made the features.
        video_ids: which videos; all where not given. Rows come in the order of the files.
        columns: of ``video_id``, ``num_clips``, ``center_seconds`` ([T] float64) and ``features``
            ([T, F] in the stored type, float16 or float32).

    Raises:
        ValueError: there is no such column.
        KeyError: a video has no features.
        TableError: there are no finished features.
    """
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or not columns:
        raise ValueError(
            f"columns must be some of {', '.join(COLUMNS)}, got {', '.join(columns) or 'none'}"
        )
    reader = FeatureReader(folder)
    index = read_index(folder)
    if video_ids is not None:
        for name in video_ids:
            reader.num_clips(name)
        index = index.filter(pc.is_in(index["video_id"], pa.array(video_ids, pa.string())))
    index = index.sort_by([("part", "ascending"), ("offset", "ascending")])
    tasks = [
        index.slice(begin, VIDEOS_PER_TASK) for begin in range(0, index.num_rows, VIDEOS_PER_TASK)
    ]
    read = _ReadVideos(reader.with_index(index.slice(0, 0)), tuple(columns))
    dataset = ray.data.from_arrow(tasks or [index])
    return dataset.map_batches(read, batch_size=None, batch_format="pyarrow")


@dataclass(frozen=True)
class _ReadVideos:
    """Rows of the index -> the videos that they name, one at a time."""

    reader: FeatureReader
    columns: tuple[str, ...]

    def __call__(self, index: pa.Table) -> Iterator[dict[str, NDArray[Any]]]:
        reader = self.reader.with_index(index)
        for name in index["video_id"].to_pylist():
            yield {column: _cell(reader, name, column)[None] for column in self.columns}


def _cell(reader: FeatureReader, name: str, column: str) -> NDArray[Any]:
    if column == "features":
        return reader.read(name)
    if column == "center_seconds":
        return reader.center_seconds(name)
    return np.array(name if column == "video_id" else reader.num_clips(name))
