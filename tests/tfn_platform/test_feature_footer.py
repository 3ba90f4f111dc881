"""The footer alone says where each video's values begin."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.some_features import DIM, STAGE, feature_contract, random_videos
from tfn_platform.errors import TableError
from tfn_platform.feature_footer import VIDEOS_KEY, bytes_per_clip, stored_videos
from tfn_platform.feature_table import write_feature_file
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES


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
