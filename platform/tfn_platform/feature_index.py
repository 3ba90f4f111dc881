"""Random access to FEATURES: one video's clips are one row group, found through an index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfn_platform.errors import TableError
from tfn_platform.parquet import part_name
from tfn_platform.store import StageFolder
from tfn_platform.tables import FEATURES, Contract, FeatureContract

INDEX_FILE = "features_index.json"


@dataclass(frozen=True)
class FeatureSet:
    """The features of many videos in one array, cheap to share between trainings of one machine.

    Attributes:
        video_ids: V names.
        offsets: [V + 1]; the clips of video v are rows offsets[v] to offsets[v + 1].
        values: [all clips, F] float32.
        contract: how they were made.
    """

    video_ids: tuple[str, ...]
    offsets: NDArray[np.int64]
    values: NDArray[np.float32]
    contract: FeatureContract

    def __post_init__(self) -> None:
        """Check that offsets and values belong together."""
        if self.offsets.shape != (len(self.video_ids) + 1,):
            raise ValueError(
                f"{len(self.video_ids)} videos need as many offsets and one more, "
                f"got shape {self.offsets.shape}"
            )
        if self.offsets[-1] != len(self.values):
            raise ValueError(
                f"offsets must end at the {len(self.values)} clips, got {self.offsets[-1]}"
            )

    def of(self, video: int) -> NDArray[np.float32]:
        """The features [T, F] of one video, without a copy."""
        return self.values[self.offsets[video] : self.offsets[video + 1]]


class FeatureReader:
    """Reads single videos out of a FEATURES table without listing or scanning it."""

    def __init__(self, folder: StageFolder) -> None:
        """Read the index; raise TableError if the stage that makes the features is not done."""
        if not folder.is_done:
            raise TableError(f"{folder.uri}: the features are not finished; run `extract` first")
        self._folder = folder
        self._index: dict[str, list[int]] = folder.store.read_json(folder.file(INDEX_FILE))
        self._open_parts: dict[int, pq.ParquetFile] = {}
        if not self._index:
            raise TableError(f"{folder.uri}: no video has features")
        schema = self._part(next(iter(self._index.values()))[0]).schema_arrow
        FEATURES.check(schema, source=folder.uri)
        contract = Contract.from_schema(schema, source=folder.uri).features
        if contract is None:
            raise TableError(f"{folder.uri}: FEATURES do not say how they were made")
        self.contract = contract

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos that have features, sorted."""
        return tuple(sorted(self._index))

    def read(self, video_id: str) -> NDArray[np.float32]:
        """The features [T, F] of one video."""
        if video_id not in self._index:
            raise KeyError(f"no features of video {video_id!r} in {self._folder.uri}")
        part, row_group = self._index[video_id]
        column = self._part(part).read_row_group(row_group, columns=["feature"])["feature"]
        return list_matrix(column)

    def read_all(self, video_ids: Sequence[str]) -> FeatureSet:
        """The features of several videos, in the order given."""
        matrices = [self.read(video_id) for video_id in video_ids]
        offsets = np.cumsum([0, *(len(matrix) for matrix in matrices)], dtype=np.int64)
        empty = np.empty((0, self.contract.feature_dim), np.float32)
        return FeatureSet(
            tuple(video_ids), offsets, np.concatenate([empty, *matrices]), self.contract
        )

    def _part(self, part: int) -> pq.ParquetFile:
        if part not in self._open_parts:
            store = self._folder.store
            relative = f"{self._folder.table(FEATURES.name.lower())}/{part_name(part)}"
            self._open_parts[part] = pq.ParquetFile(
                store.filesystem.open_input_file(store.path(relative))
            )
        return self._open_parts[part]


def write_index(folder: StageFolder) -> int:
    """Write the index of the parts that lie in `folder`; return how many videos it holds.

    Raises:
        TableError: a row group holds several videos, or a video lies in several row groups.
    """
    store = folder.store
    table = folder.table(FEATURES.name.lower())
    index: dict[str, list[int]] = {}
    for name in store.list_files(table):
        part = int(name.removeprefix("part-").removesuffix(".parquet"))
        source = store.uri(f"{table}/{name}")
        with store.filesystem.open_input_file(store.path(f"{table}/{name}")) as stream:
            videos = _videos_of_row_groups(pq.read_metadata(stream), source=source)
        for row_group, video_id in videos.items():
            if video_id in index:
                raise TableError(f"{source}: video {video_id!r} lies in more than one row group")
            index[video_id] = [part, row_group]
    store.write_json(folder.file(INDEX_FILE), index)
    return len(index)


def _videos_of_row_groups(metadata: pq.FileMetaData, *, source: str) -> dict[int, str]:
    """Number of each row group that is not empty -> the one video that it holds."""
    videos: dict[int, str] = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows == 0:
            continue
        column = FEATURES.schema.get_field_index("video_id")
        statistics = group.column(column).statistics
        if statistics is None or statistics.min != statistics.max:
            raise TableError(f"{source}: row group {number} holds more than one video")
        videos[number] = statistics.min
    return videos


def list_matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A fixed-size list column as an array [rows, F]."""
    length = column.type.list_size
    flat = column.combine_chunks().flatten()
    matrix: NDArray[np.float32] = flat.to_numpy(zero_copy_only=True).reshape(-1, length)
    return matrix
