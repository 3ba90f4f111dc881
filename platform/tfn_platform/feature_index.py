"""Random access to FEATURES: an index says where each video's values lie, one read gets them.

The index is a small Parquet file made from the parts' footers, with the contract of the features in
its metadata. A reader needs nothing else: no listing, no footer, no scan.
"""

import copy
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfn_platform.cached_files import CachedFiles
from tfn_platform.errors import TableError
from tfn_platform.feature_cache import FeatureCache
from tfn_platform.feature_footer import CenterReader, StoredVideo, stored_videos
from tfn_platform.feature_table import Values, VideoFeatures, feature_part
from tfn_platform.parquet import part_number
from tfn_platform.ranged_files import RangedFiles
from tfn_platform.store import StageFolder, bytes_hash
from tfn_platform.tables import CONTRACT_KEY, FEATURES, Contract, FeatureContract

INDEX_FILE = "features_index.parquet"
INDEX_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("num_clips", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
    ]
)
# On an object store a footer, or a video, is a round trip.
REMOTE_THREADS = 16
ROWS_PER_DIGEST = 1 << 16


@dataclass(frozen=True)
class FeatureSet:
    """The features of many videos in one array, cheap to share between trainings of one machine.

    Attributes:
        video_ids: V names.
        offsets: [V + 1]; the clips of video v are rows offsets[v] to offsets[v + 1].
        values: [all clips, F] in the type that they are stored in, float16 or float32.
        contract: how they were made.
    """

    video_ids: tuple[str, ...]
    offsets: NDArray[np.int64]
    values: Values
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

    def of(self, video: int) -> Values:
        """The features [T, F] of one video, without a copy, in the stored type."""
        return self.values[self.offsets[video] : self.offsets[video + 1]]


class FeatureReader:
    """Reads single videos out of FEATURES without listing or scanning them.

    May be used from threads, forked, and sent to other processes.
    """

    def __init__(self, folder: StageFolder, *, cache: FeatureCache | None = None) -> None:
        """Read the index.

        Args:
            folder: the stage that made the features.
            cache: where parts of a remote store are kept once they were needed; a local store
                is read where it lies.

        Raises:
            TableError: the stage is not done, no video has features, or the index is damaged.
        """
        if not folder.is_done:
            raise TableError(f"{folder.uri}: the features are not finished; run `extract` first")
        self.folder = folder
        index = read_index(folder)
        if index.num_rows == 0:
            raise TableError(f"{folder.uri}: no video has features")
        contract = Contract.from_schema(index.schema, source=folder.uri).features
        assert contract is not None
        self.contract: FeatureContract = contract
        self.dtype = np.dtype(contract.value_type)
        self._index = _places(index)
        self._centers = CenterReader()
        self._files: RangedFiles | CachedFiles = RangedFiles(folder.store)
        if cache is not None and not self._files.is_local:
            self._files = CachedFiles(self._files, cache, key=_hash_of_places(self._index))

    def with_index(self, rows: pa.Table) -> "FeatureReader":
        """A reader of the videos in these rows of the index (`read_index`) alone: light to send."""
        reader = copy.copy(self)
        reader._index = _places(rows)
        return reader

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos that have features, sorted."""
        return tuple(self._index)

    def num_clips(self, video_id: str) -> int:
        """T of one video, from the index; KeyError for an unknown one."""
        return self._place(video_id)[1].num_clips

    def read(self, video_id: str) -> Values:
        """The features [T, F] of one video, in the stored type, by one ranged read.

        Raises:
            KeyError: the video has no features.
            TableError: its part is gone or cut off.
        """
        values = np.empty((self.num_clips(video_id), self.contract.feature_dim), self.dtype)
        self._read_into(video_id, values)
        return values

    def read_all(self, video_ids: Sequence[str]) -> FeatureSet:
        """The features of several videos, in the order given."""
        offsets = np.cumsum([0, *(self.num_clips(name) for name in video_ids)], dtype=np.int64)
        values = np.empty((offsets[-1], self.contract.feature_dim), self.dtype)

        def read(video: int) -> None:
            self._read_into(video_ids[video], values[offsets[video] : offsets[video + 1]])

        in_file_order = sorted(range(len(video_ids)), key=lambda v: self._order(video_ids[v]))
        with ThreadPoolExecutor(1 if self._files.is_local else REMOTE_THREADS) as pool:
            list(pool.map(read, in_file_order))
        return FeatureSet(tuple(video_ids), offsets, values, self.contract)

    def in_file_order(self, video_ids: Sequence[str]) -> list[list[str]]:
        """The videos by the part that they lie in, and in each part in the order they lie there."""
        parts: dict[int, list[str]] = {}
        for name in sorted(video_ids, key=self._order):
            parts.setdefault(self._place(name)[0], []).append(name)
        return list(parts.values())

    def prefetch(self, video_ids: Sequence[str]) -> None:
        """Begin to fetch the parts of these videos into the cache, in the order of the videos.

        Returns at once; does nothing where there is no cache or nothing to fetch. Meanwhile nobody
        waits for a part: a video that is not there yet is read by a range of its own.
        """
        if isinstance(self._files, CachedFiles):
            parts = dict.fromkeys(self._place(name)[0] for name in video_ids)
            self._files.prefetch([feature_part(self.folder, part) for part in parts])

    def holds(self, video_id: str, values: Values, center_seconds: NDArray[np.float64]) -> bool:
        """Whether these are the features of a video as they were written, by their hash."""
        video = VideoFeatures(video_id, values, center_seconds)
        return video.content_hash == self._place(video_id)[1].content_hash

    def center_seconds(self, video_id: str) -> NDArray[np.float64]:
        """[T] the instants that a video's clips stand for, as the table has them."""
        part, place = self._place(video_id)
        return self._centers.read(
            self._files.store, feature_part(self.folder, part), row_group=place.row_group
        )

    def _place(self, video_id: str) -> tuple[int, StoredVideo]:
        if video_id not in self._index:
            raise KeyError(f"no features of video {video_id!r} in {self.folder.uri}")
        return self._index[video_id]

    def _order(self, video_id: str) -> tuple[int, int]:
        part, place = self._place(video_id)
        return part, place.offset

    def _read_into(self, video_id: str, values: Values) -> None:
        part, place = self._place(video_id)
        target = values.reshape(-1).view(np.uint8).data
        self._files.read_into(feature_part(self.folder, part), target, offset=place.offset)


def write_index(folder: StageFolder) -> int:
    """Write the index of the parts that lie in `folder`; return how many videos it holds.

    Raises:
        TableError: a part is no file of FEATURES, parts were made in different ways, or a video
            lies in two of them.
    """
    store = folder.store
    names = store.list_files(folder.table(FEATURES.name.lower()))
    parts = [part_number(name) for name in names]
    with ThreadPoolExecutor(1 if store.is_local else REMOTE_THREADS) as pool:
        footers = list(pool.map(lambda part: _read_footer(folder, part), parts))
    contracts = {contract for _, contract in footers}
    if len(contracts) > 1:
        raise TableError(
            f"{folder.uri}: the parts were not made in one way; take the folder away and make "
            "the features again"
        )
    rows = pa.concat_tables([INDEX_SCHEMA.empty_table(), *(videos for videos, _ in footers)])
    rows = rows.sort_by([("video_id", "ascending"), ("part", "ascending")])
    _check_unique(folder, rows)
    metadata = {CONTRACT_KEY: contracts.pop()} if contracts else {}
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata(metadata), sink, compression="zstd")
    store.write_bytes(folder.file(INDEX_FILE), memoryview(sink.getvalue()))
    return int(rows.num_rows)


def _check_unique(folder: StageFolder, rows: pa.Table) -> None:
    """Refuse a video that lies in two parts; the rows are sorted by video and part."""
    ids = rows["video_id"]
    first = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()
    if first >= 0:
        one, other = rows["part"][first].as_py(), rows["part"][first + 1].as_py()
        raise TableError(
            f"{folder.store.uri(feature_part(folder, other))}: video {ids[first].as_py()!r} lies "
            f"in part {one}, too"
        )


def features_hash(folder: StageFolder) -> str:
    """A hash of all features that the index of a folder names, however they lie in parts."""
    digest, index = hashlib.sha256(), read_index(folder).select(["video_id", "content_hash"])
    for batch in index.to_batches(max_chunksize=ROWS_PER_DIGEST):
        pairs = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        digest.update("".join(f"{name}\0{content}\n" for name, content in pairs).encode())
    return digest.hexdigest()[:16]


def _read_footer(folder: StageFolder, part: int) -> tuple[pa.Table, bytes]:
    """A part's rows of the index, and its contract."""
    relative = feature_part(folder, part)
    source = folder.store.uri(relative)
    try:
        with folder.store.filesystem.open_input_file(folder.store.path(relative)) as stream:
            parquet = pq.ParquetFile(stream)
            videos, schema = stored_videos(parquet, source=source), parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{source}: cannot be read as Parquet: {error}") from error
    if Contract.from_schema(schema, source=source).features is None:
        raise TableError(f"{source}: FEATURES do not say how they were made")
    # In columns: as objects, half a million videos would take 300 MB.
    rows = [{"part": part, **vars(video)} for video in videos]
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), schema.metadata[CONTRACT_KEY]


def read_index(folder: StageFolder) -> pa.Table:
    """The index of a folder, sorted by video, with the features' contract in its metadata.

    Raises:
        TableError: there is none, or it is damaged.
    """
    try:
        data = folder.store.read_bytes(folder.file(INDEX_FILE))
    except FileNotFoundError as error:
        raise TableError(
            f"{folder.uri}: holds no features; the folder of extract or import-features would do"
        ) from error
    try:
        # Not pq.read_table: its threads may let go of `data` after the interpreter has ended, and
        # then abort a process that had done all its work.
        return pq.ParquetFile(pa.BufferReader(data)).read()
    except pa.ArrowException as error:
        raise TableError(f"{folder.uri}: {INDEX_FILE} is damaged: {error}") from error


def _places(index: pa.Table) -> dict[str, tuple[int, StoredVideo]]:
    """Video -> its part, and where it lies there."""
    names = [name for name in INDEX_SCHEMA.names if name != "part"]
    videos = map(StoredVideo, *(index[name].to_pylist() for name in names))
    parts = index["part"].to_pylist()
    return {video.video_id: (part, video) for part, video in zip(parts, videos, strict=True)}


def _hash_of_places(index: dict[str, tuple[int, StoredVideo]]) -> str:
    """A hash of the files that an index belongs to."""
    return bytes_hash(repr(list(index.values())).encode())


def list_matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A fixed-size list column as an array [rows, F]."""
    flat = column.combine_chunks().flatten()
    matrix: NDArray[np.float32] = flat.to_numpy(zero_copy_only=True)
    return matrix.reshape(-1, column.type.list_size)
