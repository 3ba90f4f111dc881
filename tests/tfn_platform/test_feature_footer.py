"""The footer alone says where each video's values begin."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import DIM, STAGE, feature_contract, random_videos, write_parts
from tfn_platform.errors import TableError
from tfn_platform.feature_footer import (
    VIDEOS_KEY,
    CenterReader,
    bytes_per_clip,
    stored_videos,
    video_extents,
)
from tfn_platform.feature_table import feature_part, write_feature_file
from tfn_platform.ranged_files import GATE
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES

__all__ = ["s3_endpoint", "s3_root"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.mark.parametrize("value_type", ["float16", "float32"])
def test_every_video_lies_where_the_footer_says(store: Store, value_type: Any) -> None:
    features = feature_contract(value_type)
    videos = random_videos(features, b=3, a=1, c=9)
    contract = STAGE.contract(FEATURES, features=features)
    write_feature_file(store, "x.parquet", videos, contract=contract)
    data = store.read_bytes("x.parquet")
    parquet = pq.ParquetFile(pa.BufferReader(data))
    stored = stored_videos(parquet, source="x")
    assert [place.video_id for place in stored] == ["b", "a", "c"]
    for number, (place, video) in enumerate(zip(stored, videos, strict=True)):
        size = video.values.nbytes
        assert data[place.offset : place.offset + size] == video.values.tobytes()
        assert (place.row_group, place.num_clips) == (number, len(video.values))
        assert place.content_hash == video.content_hash
    assert bytes_per_clip(parquet.schema_arrow) == DIM * np.dtype(value_type).itemsize
    extents = video_extents(parquet, source="x")
    begins = [0, *(extent.begin for extent in extents), len(data)]
    assert begins == sorted(begins)
    for number, (extent, video) in enumerate(zip(extents, videos, strict=True)):
        begin, end = extent.values_begin, extent.values_begin + extent.num_value_bytes
        assert data[begin:end] == video.values.tobytes()
        assert extent.begin < extent.centers_begin < begin < end <= begins[number + 2]
        begin = extent.centers_begin
        assert data[begin : begin + extent.num_center_bytes] == video.center_seconds.tobytes()
        assert (extent.dtype, extent.shape) == (video.values.dtype, video.values.shape)
        assert extent.content_hash == video.content_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata.pop(VIDEOS_KEY), "x: does not say which videos it holds"),
        (
            lambda metadata: metadata.update({VIDEOS_KEY: json.dumps([]).encode()}),
            "x: names 0 videos but holds 1 row groups",
        ),
    ],
)
def test_a_file_that_was_written_otherwise_is_refused(
    store: Store, change: Callable[[dict[bytes, bytes]], Any], message: str
) -> None:
    features = feature_contract()
    contract = STAGE.contract(FEATURES, features=features)
    write_feature_file(store, "x.parquet", random_videos(features, a=2), contract=contract)
    table = pq.read_table(pa.BufferReader(store.read_bytes("x.parquet")))
    metadata = dict(table.schema.metadata)
    change(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    with pytest.raises(TableError, match=message):
        stored_videos(pq.ParquetFile(pa.BufferReader(sink.getvalue())), source="x")


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_the_instants_of_a_file_take_one_footer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The footer was read and taken apart for each video, past the gate that puts off forks."""
    root = str(tmp_path) if kind == "local" else request.getfixturevalue("s3_root")
    contract = feature_contract()
    parts = [random_videos(contract, a=3, b=5), random_videos(contract, c=2)]
    folder = write_parts(Store.open(root), parts, contract=contract)
    footers: list[bool] = []
    parquet_file, running = pq.ParquetFile, []

    def noting(stream: Any, *, metadata: Any = None) -> pq.ParquetFile:
        footers.append(metadata is None)
        running.append(GATE._running)
        return parquet_file(stream, metadata=metadata)

    monkeypatch.setattr(pq, "ParquetFile", noting)
    reader = CenterReader()
    for part, videos in enumerate(parts):
        for number, video in enumerate(videos):
            found = reader.read(folder.store, feature_part(folder, part), row_group=number)
            np.testing.assert_array_equal(found, video.center_seconds)
    assert footers == [True, False, True]
    assert running == [1, 1, 1]
    assert pickle.loads(pickle.dumps(reader))._last[0] == feature_part(folder, 1)
    folder.store.delete_file(feature_part(folder, 1))
    with pytest.raises(TableError, match="part-00001.parquet: cannot be read"):
        reader.read(folder.store, feature_part(folder, 1), row_group=0)
