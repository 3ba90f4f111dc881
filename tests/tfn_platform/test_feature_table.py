"""Files of FEATURES: what comes back, where it lies, and what other programs make of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.some_features import STAGE, feature_contract, random_videos
from tfn_platform.errors import TableError
from tfn_platform.feature_table import (
    VideoFeatures,
    feature_part,
    iter_feature_file,
    read_feature_file,
    write_feature_file,
    write_feature_part,
)
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES, Contract, FeatureContract

FLOAT32, FLOAT16 = feature_contract(), feature_contract("float16")
BOTH = pytest.mark.parametrize("features", [FLOAT32, FLOAT16], ids=lambda c: c.value_type)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return STAGE.folder(Store.open(str(tmp_path)))


def table_contract(features: FeatureContract | None) -> Contract:
    return STAGE.contract(FEATURES, features=features)


def write(folder: StageFolder, videos: list[VideoFeatures], features: FeatureContract) -> Path:
    write_feature_part(folder, videos, contract=table_contract(features), part=0)
    return Path(folder.store.path(feature_part(folder, 0)))


def assert_same(found: list[VideoFeatures], expected: list[VideoFeatures]) -> None:
    assert [video.video_id for video in found] == [video.video_id for video in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.values.dtype == theirs.values.dtype
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.center_seconds, theirs.center_seconds)


@BOTH
def test_a_file_comes_back(folder: StageFolder, features: FeatureContract) -> None:
    videos = random_videos(features, b=3, a=1, c=50)
    write(folder, videos, features)
    found = read_feature_file(folder.store, feature_part(folder, 0))
    assert_same(found, videos)
    write(folder, [], features)
    assert read_feature_file(folder.store, feature_part(folder, 0)) == []


@BOTH
@pytest.mark.parametrize("num_clips", [1, 2, 1023, 30_000])
def test_values_are_the_last_bytes_of_their_column(
    folder: StageFolder, features: FeatureContract, num_clips: int
) -> None:
    """Looked up by hand in the footer, for lengths below and beyond pyarrow's usual page."""
    (video,) = random_videos(features, a=num_clips)
    path = write(folder, random_videos(features, first=2) + [video], features)
    data, footer = path.read_bytes(), pq.read_metadata(path)
    column = footer.row_group(1).column(3)
    assert column.path_in_schema == "feature.list.element"
    assert column.compression == "UNCOMPRESSED" and not column.has_dictionary_page
    end = column.data_page_offset + column.total_compressed_size
    assert data[end - video.values.nbytes : end] == video.values.tobytes()


@BOTH
def test_equal_videos_give_equal_bytes(folder: StageFolder, features: FeatureContract) -> None:
    videos = random_videos(features, a=3, b=2)
    first = write(folder, videos, features).read_bytes()
    copies = [
        replace(video, values=np.asfortranarray(video.values), video_id=str(video.video_id))
        for video in videos
    ]
    assert write(folder, copies, features).read_bytes() == first
    assert write(folder, videos[::-1], features).read_bytes() != first


def test_the_hash_is_of_all_that_the_values_mean() -> None:
    (video,) = random_videos(FLOAT32, a=4)
    same = replace(video, video_id="another name", values=np.asfortranarray(video.values))
    assert same.content_hash == video.content_hash
    other_value = video.values.copy()
    other_value[2, 1] += 1e-6
    others = [
        replace(video, values=other_value),
        replace(video, values=video.values.view(np.float16)),
        replace(video, values=video.values.reshape(2, -1), center_seconds=np.zeros(2)),
        replace(video, center_seconds=video.center_seconds + 1e-9),
    ]
    assert len({video.content_hash, *(other.content_hash for other in others)}) == 5


@BOTH
def test_any_program_reads_it(folder: StageFolder, features: FeatureContract) -> None:
    videos = random_videos(features, b=3, a=2)
    path = write(folder, videos, features)
    write_feature_part(folder, [], contract=table_contract(features), part=1)
    names = ["b"] * 3 + ["a"] * 2
    centers = [0.25, 0.75, 1.25, 0.25, 0.75]
    expected = np.concatenate([video.values for video in videos])

    frame = pd.read_parquet(path)
    assert frame["video_id"].tolist() == names and frame["center_seconds"].tolist() == centers
    np.testing.assert_array_equal(np.stack(frame["feature"].tolist()), expected)

    whole = pyarrow.dataset.dataset(path.parent).to_table()
    assert whole["clip_index"].to_pylist() == [0, 1, 2, 0, 1]
    assert whole["feature"].to_pylist() == expected.tolist()
    only = pq.read_table(path, filters=[("video_id", "==", "a")])
    assert only["feature"].to_pylist() == expected[3:].tolist()

    query = f"select video_id, center_seconds, feature from '{path.parent}/*.parquet'"
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == names and [row[1] for row in rows] == centers
    np.testing.assert_array_equal([row[2] for row in rows], expected)


def test_without_values_there_is_nothing_to_write() -> None:
    good: dict[str, Any] = {"values": np.zeros((2, 3), np.float32), "center_seconds": np.zeros(2)}
    VideoFeatures("a", **good)
    for wrong in (
        {"values": np.zeros((0, 3), np.float32)},
        {"values": np.zeros(2, np.float32)},
        {"values": np.zeros((2, 3))},
        {"center_seconds": np.zeros(3)},
        {"center_seconds": np.zeros(2, np.float32)},
    ):
        with pytest.raises(ValueError, match="^a: .* got shape"):
            VideoFeatures("a", **{**good, **wrong})


@pytest.mark.parametrize(
    ("value_type", "value", "message"),
    [
        ("float32", np.nan, r"video 'b': 1 of 12 values are not finite, first in clip 2$"),
        ("float32", np.inf, r"video 'b': 1 of 12 values are not finite, first in clip 2$"),
        ("float16", 70000.0, "first in clip 2; numbers above 65504 do not fit into float16"),
    ],
)
def test_values_that_are_not_finite_are_refused(
    folder: StageFolder, value_type: Literal["float16", "float32"], value: float, message: str
) -> None:
    features = feature_contract(value_type)
    videos = random_videos(features, a=2, b=3)
    values = videos[1].values.astype(np.float32)
    values[2, 3] = value
    with np.errstate(over="ignore"):
        videos[1] = replace(videos[1], values=values.astype(value_type))
    with pytest.raises(TableError, match=message):
        write(folder, videos, features)
    assert folder.store.list_files(folder.table("features")) == []


def test_what_the_contract_does_not_say_is_refused(folder: StageFolder) -> None:
    videos = random_videos(FLOAT32, a=2)
    with pytest.raises(TableError, match="'a': its contract says 5 values a clip, got 4"):
        write(folder, videos, feature_contract(feature_dim=5))
    with pytest.raises(TableError, match="'a': its contract says float16, got float32"):
        write(folder, videos, FLOAT16)
    with pytest.raises(TableError, match="video 'a' is there twice"):
        write(folder, videos * 2, FLOAT32)
    gone = replace(videos[0], center_seconds=np.array([0.0, np.nan]))
    with pytest.raises(TableError, match="'a': center_seconds are not all finite"):
        write(folder, [gone], FLOAT32)
    for contract in (table_contract(None), Contract("VIDEOS", "key", (), FLOAT32)):
        with pytest.raises(TableError, match="need a contract that says how they were made"):
            write_feature_file(folder.store, "x.parquet", videos, contract=contract)


def test_a_video_that_no_page_can_hold_is_refused(
    folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfn_platform.feature_table.MAX_VIDEO_BYTES", 31)
    with pytest.raises(TableError, match="'a': 32 bytes are more than one page .* can hold"):
        write(folder, random_videos(FLOAT32, a=2), FLOAT32)


def test_values_that_lie_elsewhere_are_never_written(
    folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a pyarrow that would compress or split what it is told not to."""
    writer = pq.ParquetWriter
    monkeypatch.setattr(
        "tfn_platform.feature_table.pq.ParquetWriter",
        lambda *args, **options: writer(*args, **{**options, "compression": "zstd"}),
    )
    with pytest.raises(TableError, match="does not put the values .* at the end of its column"):
        write(folder, random_videos(FLOAT32, a=200), FLOAT32)
    assert folder.store.list_files(folder.table("features")) == []


def test_a_damaged_file_is_refused(folder: StageFolder) -> None:
    videos = random_videos(FLOAT32, a=20, b=20)
    path = write(folder, videos, FLOAT32)
    data = bytearray(path.read_bytes())
    place = data.index(videos[1].values.tobytes())
    data[place + 100] ^= 1
    with pytest.raises(TableError, match="x: the features of video 'b' are not those that were"):
        list(iter_feature_file(bytes(data), source="x"))
    path.write_bytes(data[:-9])
    with pytest.raises(TableError, match="part-00000.parquet: cannot be read as Parquet"):
        read_feature_file(folder.store, feature_part(folder, 0))


def test_a_table_of_another_make_is_refused() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"video_id": ["a"], "center_seconds": [1.0]}), sink)
    with pytest.raises(TableError, match="x: not a FEATURES table: no column 'clip_index'"):
        list(iter_feature_file(sink.getvalue().to_pybytes(), source="x"))
