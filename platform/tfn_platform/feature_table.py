"""Files of FEATURES: a video a row group, its values plain and contiguous, with a hash of each.

Values are neither compressed nor encoded and form the last bytes of their column chunk, so that a
reader who knows where they begin gets one video by one ranged read, without the footer. The file
is Parquet like any other to all who do not know this.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfn_platform.errors import TableError
from tfn_platform.feature_footer import VIDEOS_KEY, stored_videos
from tfn_platform.parquet import part_name
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES, Contract, FeatureContract

HASH_LENGTH = 16
# The length of a page is a 32-bit number in Parquet; levels and header take a little of it.
MAX_VIDEO_BYTES = 2**31 - 2**24
UNLIMITED = 2**31 - 1

Values = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video.

    Attributes:
        video_id: its name.
        values: [T, F] float16 or float32, one row a clip, T and F at least 1.
        center_seconds: [T] float64, the instants that the clips stand for.
    """

    video_id: str
    values: Values
    center_seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check shapes and types."""
        shape, dtype = self.values.shape, self.values.dtype
        if len(shape) != 2 or 0 in shape or dtype not in (np.float16, np.float32):
            raise ValueError(
                f"{self.video_id}: values must be [T, F] of float16 or float32 and not empty, "
                f"got shape {shape} of {dtype}"
            )
        centers = self.center_seconds
        if centers.shape != shape[:1] or centers.dtype != np.float64:
            raise ValueError(
                f"{self.video_id}: center_seconds must be [{shape[0]}] of float64, "
                f"got shape {centers.shape} of {centers.dtype}"
            )

    @property
    def content_hash(self) -> str:
        """A hash of type, shape, values and times; the name is not part of it."""
        digest = begin_content_hash(self.values.dtype, self.values.shape)
        digest.update(np.ascontiguousarray(self.values).data)
        digest.update(np.ascontiguousarray(self.center_seconds).data)
        return digest.hexdigest()[:HASH_LENGTH]


def begin_content_hash(dtype: np.dtype[Any], shape: tuple[int, ...]) -> "hashlib._Hash":
    """A video's content hash as far as it is known without the bytes of values and times."""
    return hashlib.sha256(f"{dtype}{shape}".encode())


def write_feature_part(
    folder: StageFolder, videos: Sequence[VideoFeatures], *, contract: Contract, part: int
) -> None:
    """Write one part of FEATURES; see `write_feature_file`. Writing a part again replaces it."""
    write_feature_file(folder.store, feature_part(folder, part), videos, contract=contract)


def feature_part(folder: StageFolder, part: int) -> str:
    """The name, inside the storage root, of a part of FEATURES."""
    return f"{folder.table(FEATURES.name.lower())}/{part_name(part)}"


def write_feature_file(
    store: Store, relative: str, videos: Sequence[VideoFeatures], *, contract: Contract
) -> None:
    """Write videos as one file of FEATURES, which appears whole or not at all.

    Equal videos in equal order give equal bytes. There may be none.

    Args:
        store: where the file goes.
        relative: its name inside the storage root.
        videos: in the order that they shall lie in.
        contract: of FEATURES, with the features' own; goes into the metadata.

    Raises:
        TableError: the contract is another table's; a video is there twice, is not of the width
            or type that the contract says, holds values that are not finite, or is too long.
    """
    source = store.uri(relative)
    features = contract.features
    if contract.table != FEATURES.name or features is None:
        raise TableError(f"{source}: FEATURES need a contract that says how they were made")
    hashes: dict[str, str] = {}
    for video in videos:
        _check_video(video, features, source=source)
        if video.video_id in hashes:
            raise TableError(f"{source}: video {video.video_id!r} is there twice")
        hashes[video.video_id] = video.content_hash
    schema = FEATURES.sized(
        features.feature_dim, value_type=pa.from_numpy_dtype(np.dtype(features.value_type))
    )
    metadata = {**contract.to_metadata(), VIDEOS_KEY: json.dumps(list(hashes.items())).encode()}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema.with_metadata(metadata),
        compression="none",
        use_dictionary=["video_id"],
        write_statistics=["video_id"],
        data_page_size=UNLIMITED,
        max_rows_per_page=UNLIMITED,
    ) as writer:
        for video in videos:
            writer.write_table(_rows(video, schema), row_group_size=len(video.values))
    data = sink.getvalue()
    _check_layout(data, videos, source=source)
    store.write_bytes(relative, memoryview(data))


def _check_video(video: VideoFeatures, features: FeatureContract, *, source: str) -> None:
    where = f"{source}: video {video.video_id!r}"
    if video.values.shape[1] != features.feature_dim:
        raise TableError(
            f"{where}: its contract says {features.feature_dim} values a clip, "
            f"got {video.values.shape[1]}"
        )
    if video.values.dtype != features.value_type:
        raise TableError(
            f"{where}: its contract says {features.value_type}, got {video.values.dtype}"
        )
    if video.values.nbytes > MAX_VIDEO_BYTES:
        raise TableError(
            f"{where}: {video.values.nbytes} bytes are more than one page of Parquet can hold; "
            "a longer stride, or the video cut into several, would do"
        )
    finite = np.isfinite(video.values)
    if not finite.all():
        clip = int(np.argmin(finite.all(axis=1)))
        hint = (
            "; numbers above 65504 do not fit into float16, float32 would do"
            if np.isinf(video.values).any() and features.value_type == "float16"
            else ""
        )
        raise TableError(
            f"{where}: {finite.size - np.count_nonzero(finite)} of {finite.size} values are not "
            f"finite, first in clip {clip}{hint}"
        )
    if not np.isfinite(video.center_seconds).all():
        raise TableError(f"{where}: center_seconds are not all finite")


def _rows(video: VideoFeatures, schema: pa.Schema) -> pa.Table:
    num_clips, length = video.values.shape
    flat = pa.array(np.ascontiguousarray(video.values).ravel())
    columns = {
        "video_id": pa.repeat(video.video_id, num_clips),
        "clip_index": np.arange(num_clips, dtype=np.int32),
        "center_seconds": video.center_seconds,
        "feature": pa.FixedSizeListArray.from_arrays(flat, length),
    }
    return pa.table(columns, schema=schema)


def _check_layout(data: pa.Buffer, videos: Sequence[VideoFeatures], *, source: str) -> None:
    """Make sure that the values lie where a ranged read will look for them."""
    stored = stored_videos(pq.ParquetFile(pa.BufferReader(data)), source=source)
    for video, place in zip(videos, stored, strict=True):
        found = memoryview(data)[place.offset : place.offset + video.values.nbytes]
        if not np.array_equal(
            np.frombuffer(found, np.uint8),
            np.ascontiguousarray(video.values).view(np.uint8).ravel(),
        ):
            raise TableError(
                f"{source}: this pyarrow ({pa.__version__}) does not put the values of a video at "
                "the end of its column; another version would do"
            )


def read_feature_file(store: Store, relative: str) -> list[VideoFeatures]:
    """Read a file of FEATURES back, whole; the arrays share its memory and are read-only.

    Raises:
        TableError: it is not such a file, or it does not hold what was written.
    """
    return list(iter_feature_file(store.read_bytes(relative), source=store.uri(relative)))


def iter_feature_file(data: bytes | memoryview, *, source: str) -> Iterator[VideoFeatures]:
    """The videos of a file of FEATURES that is in memory; raise as `read_feature_file` does."""
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{source}: cannot be read as Parquet: {error}") from error
    stored = stored_videos(parquet, source=source)
    Contract.from_schema(parquet.schema_arrow, source=source)
    feature = parquet.schema_arrow.field("feature").type
    dtype = feature.value_type.to_pandas_dtype()
    centers = parquet.read(columns=["center_seconds"])["center_seconds"]
    begin = 0
    for place in stored:
        count = place.num_clips * feature.list_size
        values = np.frombuffer(data, dtype, count=count, offset=place.offset)
        video = VideoFeatures(
            place.video_id,
            values.reshape(place.num_clips, -1),
            centers.slice(begin, place.num_clips).to_numpy(),
        )
        begin += place.num_clips
        if video.content_hash != place.content_hash:
            raise TableError(
                f"{source}: the features of video {place.video_id!r} are not those that were "
                "written: the file is damaged; make it again"
            )
        yield video
