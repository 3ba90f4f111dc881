"""Random access to features: what was written comes back, whichever part it lies in."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tfn_platform.errors import TableError
from tfn_platform.feature_index import FeatureReader, FeatureSet, list_matrix, write_index
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES, FeatureContract

STAGE = Stage("extract", {})
DIM = 4
CONTRACT = FeatureContract(
    backbone="tiny",
    weights_hash="abc",
    feature_dim=DIM,
    frames_per_clip=8,
    frame_rate="15",
    stride_seconds="1/2",
    alignment="center",
    short_side=32,
    normalization="mean 0.45, std 0.225",
    decoder="PyAV 14",
)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return STAGE.folder(Store.open(str(tmp_path)))


def make_features(seed: int, **clips: int) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.standard_normal((count, DIM)).astype(np.float32)
        for name, count in clips.items()
    }


def write_part(
    folder: StageFolder,
    part: int,
    videos: dict[str, NDArray[np.float32]],
    *,
    rows_per_group: list[int] | None = None,
    features: FeatureContract | None = CONTRACT,
) -> None:
    counts = [len(values) for values in videos.values()]
    columns: dict[str, Any] = {
        "video_id": [name for name, values in videos.items() for _ in values],
        "clip_index": [clip for count in counts for clip in range(count)],
        "center_seconds": [clip + 0.5 for count in counts for clip in range(count)],
        "feature": [row for values in videos.values() for row in values.tolist()],
    }
    rows = pa.table(columns, schema=FEATURES.sized(DIM))
    contract = STAGE.contract(FEATURES, features=features)
    groups = rows_per_group or counts
    write_table(folder, FEATURES, rows, contract=contract, part=part, rows_per_group=groups)


def test_every_video_comes_back_from_its_part(folder: StageFolder) -> None:
    first, second = make_features(0, b=3, a=1), make_features(1, d=5, c=2)
    write_part(folder, 0, first)
    write_part(folder, 1, {})
    write_part(folder, 12, second)
    assert write_index(folder) == 4
    folder.commit({})
    reader = FeatureReader(folder)
    assert reader.video_ids == ("a", "b", "c", "d")
    assert reader.contract == CONTRACT
    for name, values in (first | second).items():
        np.testing.assert_array_equal(reader.read(name), values)
    several = reader.read_all(["d", "a", "b"])
    assert several.offsets.tolist() == [0, 5, 6, 9]
    np.testing.assert_array_equal(several.of(0), second["d"])
    np.testing.assert_array_equal(several.of(2), first["b"])
    assert reader.read_all([]).values.shape == (0, DIM)
    with pytest.raises(KeyError, match="no features of video 'x'"):
        reader.read("x")


def test_a_video_of_no_clips_is_left_out(folder: StageFolder) -> None:
    """An empty row group has no statistics, and writing the index ended in an AttributeError."""
    write_part(folder, 0, make_features(0, a=2, none=0, b=1), rows_per_group=[2, 0, 1])
    assert write_index(folder) == 2
    folder.commit({})
    assert FeatureReader(folder).video_ids == ("a", "b")


def test_a_video_in_two_row_groups_is_refused(folder: StageFolder) -> None:
    """The first of the two was lost without a word."""
    videos = make_features(0, a=4)
    write_part(folder, 0, videos, rows_per_group=[2, 2])
    with pytest.raises(TableError, match="part-00000.parquet: video 'a' lies in more than one row"):
        write_index(folder)
    write_part(folder, 0, videos)
    write_part(folder, 1, videos)
    with pytest.raises(TableError, match="part-00001.parquet: video 'a' lies in more than one row"):
        write_index(folder)


def test_a_row_group_of_two_videos_is_refused(folder: StageFolder) -> None:
    write_part(folder, 0, make_features(0, a=1, b=2), rows_per_group=[3])
    with pytest.raises(TableError, match="row group 0 holds more than one video"):
        write_index(folder)


def test_what_cannot_be_read_from_is_refused(folder: StageFolder) -> None:
    write_part(folder, 0, {})
    assert write_index(folder) == 0
    with pytest.raises(TableError, match="the features are not finished; run `extract` first"):
        FeatureReader(folder)
    folder.commit({})
    with pytest.raises(TableError, match="no video has features"):
        FeatureReader(folder)
    write_part(folder, 0, make_features(0, a=1), features=None)
    write_index(folder)
    with pytest.raises(TableError, match="do not say how they were made"):
        FeatureReader(folder)


def test_another_table_in_the_place_of_features_is_refused(folder: StageFolder) -> None:
    write_part(folder, 0, make_features(0, a=1))
    write_index(folder)
    folder.commit({})
    path = folder.store.path(f"{folder.table('features')}/part-00000.parquet")
    pq.write_table(pa.table({"video_id": ["a"], "score": [1.0]}), path)
    with pytest.raises(TableError, match="not a FEATURES table: no column 'clip_index'"):
        FeatureReader(folder)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 3], "1 videos|2 videos"), ([0, 1, 2], "must end at the 3 clips, got 2")],
)
def test_a_feature_set_checks_its_offsets(offsets: list[int], message: str) -> None:
    values = np.zeros((3, DIM), np.float32)
    with pytest.raises(ValueError, match=message):
        FeatureSet(("a", "b"), np.array(offsets), values, CONTRACT)


def test_list_matrix_of_slices_chunks_and_nothing() -> None:
    values = np.arange(12, dtype=np.float32)
    array = pa.FixedSizeListArray.from_arrays(pa.array(values), 3)
    column = pa.chunked_array([array.slice(1, 2), array.slice(3)])
    np.testing.assert_array_equal(list_matrix(column), values.reshape(4, 3)[1:])
    assert list_matrix(pa.chunked_array([], type=array.type)).shape == (0, 3)
