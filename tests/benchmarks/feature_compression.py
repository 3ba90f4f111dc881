"""What compressing features would save, and what reading a video would then cost."""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.feature_reading import Size, random_features
from tfn_platform.tables import FEATURES

NUM_VIDEOS = 8
COLUMN = "feature.list.element"
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"compression": "none"},
    "zstd": {"compression": "zstd"},
    "lz4": {"compression": "lz4"},
    "byte-stream split, zstd": {
        "compression": "zstd",
        "column_encoding": {COLUMN: "BYTE_STREAM_SPLIT"},
    },
}


@dataclass(frozen=True)
class Compression:
    """One way to store features, through Parquet's own reader."""

    name: str
    share: float
    """Bytes of the file over bytes of the values."""
    read_seconds: float
    """Of one video."""
    write_seconds: float
    """Of one video."""


def compression_figures(size: Size, *, repeats: int) -> Iterator[Compression]:
    """Size and time of each way, on a few videos, a row group each."""
    small = Size(
        min(size.num_videos, NUM_VIDEOS), size.num_clips, size.feature_dim, size.value_type
    )
    _, videos = random_features(small)
    value_type = pa.from_numpy_dtype(np.dtype(size.value_type))
    schema = FEATURES.sized(size.feature_dim, value_type=value_type)
    tables = [
        pa.table(
            {
                "video_id": [video.video_id] * size.num_clips,
                "clip_index": np.arange(size.num_clips, dtype=np.int32),
                "center_seconds": video.center_seconds,
                "feature": pa.FixedSizeListArray.from_arrays(
                    pa.array(video.values.ravel()), size.feature_dim
                ),
            },
            schema=schema,
        )
        for video in videos
    ]
    num_bytes = sum(video.values.nbytes for video in videos)
    for name, options in WAYS.items():
        sink, started = io.BytesIO(), time.perf_counter()
        with pq.ParquetWriter(sink, schema, use_dictionary=["video_id"], **options) as writer:
            for table in tables:
                writer.write_table(table)
        write_seconds = (time.perf_counter() - started) / len(videos)
        parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
        seconds = []
        for number in list(range(len(videos))) * repeats:
            started = time.perf_counter()
            parquet.read_row_group(number, columns=["feature"], use_threads=False)
            seconds.append(time.perf_counter() - started)
        label = f"{size.value_type}, {name}"
        share = len(sink.getvalue()) / num_bytes
        yield Compression(label, share, median(seconds), write_seconds)
