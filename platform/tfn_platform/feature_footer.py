"""Which videos a file of FEATURES holds and where the values of each begin, by its footer alone."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfn_platform.errors import TableError
from tfn_platform.ranged_files import GATE
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES

CENTER_BYTES = 8
VIDEOS_KEY = b"tfn.feature_videos"


@dataclass(frozen=True)
class StoredVideo:
    """Where one video lies in a file.

    Attributes:
        video_id: its name.
        row_group: number of the row group that holds it and nothing else.
        num_clips: T.
        offset: of its values in the file, in bytes; they end T·F values later.
        content_hash: as `VideoFeatures.content_hash`.
    """

    video_id: str
    row_group: int
    num_clips: int
    offset: int
    content_hash: str


def stored_videos(parquet: pq.ParquetFile, *, source: str) -> list[StoredVideo]:
    """The videos of a file in the order that they lie in; loads no values.

    Raises:
        TableError: `write_feature_file` did not write the file.
    """
    schema, metadata = parquet.schema_arrow, parquet.metadata
    FEATURES.check(schema, source=source)
    extra = schema.metadata or {}
    if VIDEOS_KEY not in extra:
        raise TableError(
            f"{source}: does not say which videos it holds: another program or an older version "
            "of this one wrote it; make the features again"
        )
    hashes: list[tuple[str, str]] = json.loads(extra[VIDEOS_KEY])
    if len(hashes) != metadata.num_row_groups:
        raise TableError(
            f"{source}: names {len(hashes)} videos but holds {metadata.num_row_groups} row groups"
        )
    column = FEATURES.schema.get_field_index("feature")
    clip_bytes = bytes_per_clip(schema)
    stored = []
    for number, (video_id, content_hash) in enumerate(hashes):
        group = metadata.row_group(number)
        chunk = group.column(column)
        end = chunk.data_page_offset + chunk.total_compressed_size
        offset = end - group.num_rows * clip_bytes
        stored.append(StoredVideo(video_id, number, group.num_rows, offset, content_hash))
    return stored


@dataclass(frozen=True)
class VideoExtent:
    """What a file keeps of one video, in bytes from the file's begin.

    Attributes:
        begin: of the video's row group.
        centers_begin: of its clips' instants, if they are plain, as `write_feature_file` has them.
        values_begin: of its values.
        dtype: of the values.
        shape: T and F.
        content_hash: as `VideoFeatures.content_hash`.
    """

    begin: int
    centers_begin: int
    values_begin: int
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    content_hash: str

    @property
    def num_center_bytes(self) -> int:
        """T float64."""
        return self.shape[0] * CENTER_BYTES

    @property
    def num_value_bytes(self) -> int:
        """T·F values."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def video_extents(parquet: pq.ParquetFile, *, source: str) -> list[VideoExtent]:
    """Where the videos of a file lie, in their order; raise as `stored_videos` does."""
    values = parquet.schema_arrow.field("feature").type
    dtype = np.dtype(values.value_type.to_pandas_dtype())
    centers_column = FEATURES.schema.get_field_index("center_seconds")
    extents = []
    for video in stored_videos(parquet, source=source):
        group = parquet.metadata.row_group(video.row_group)
        first, centers = group.column(0), group.column(centers_column)
        centers_end = centers.data_page_offset + centers.total_compressed_size
        extents.append(
            VideoExtent(
                begin=first.dictionary_page_offset or first.data_page_offset,
                centers_begin=centers_end - video.num_clips * CENTER_BYTES,
                values_begin=video.offset,
                dtype=dtype,
                shape=(video.num_clips, values.list_size),
                content_hash=video.content_hash,
            )
        )
    return extents


def bytes_per_clip(schema: pa.Schema) -> int:
    """Bytes of the values of one clip."""
    values = schema.field("feature").type
    return int(values.list_size * values.value_type.bit_width // 8)


class CenterReader:
    """Reads the instants of clips; keeps the footer of the file that was asked for last."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._last: tuple[str, pq.FileMetaData | None] = "", None

    def read(self, store: Store, relative: str, *, row_group: int) -> NDArray[np.float64]:
        """[T] the instants that the clips of one video stand for, as the table has them.

        Raises:
            TableError: the file is gone, or is no file of FEATURES.
        """
        name, footer = self._last
        try:
            with GATE.request(), store.filesystem.open_input_file(store.path(relative)) as stream:
                parquet = pq.ParquetFile(stream, metadata=footer if name == relative else None)
                rows = parquet.read_row_group(row_group, columns=["center_seconds"])
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{store.uri(relative)}: cannot be read: {error}") from error
        self._last = relative, parquet.metadata
        centers: NDArray[np.float64] = rows["center_seconds"].to_numpy()
        return centers
