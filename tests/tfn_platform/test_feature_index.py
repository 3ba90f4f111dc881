"""Random access to features: what was written comes back, whichever part it lies in."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import DIM, STAGE, feature_contract, random_videos, write_parts
from tfn_platform.errors import TableError
from tfn_platform.feature_index import (
    INDEX_FILE,
    FeatureReader,
    FeatureSet,
    features_hash,
    list_matrix,
    write_index,
)
from tfn_platform.feature_table import feature_part, write_feature_part
from tfn_platform.ranged_files import LocalFile, RemoteFile
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES

__all__ = ["s3_endpoint", "s3_root"]

FLOAT32, FLOAT16 = feature_contract(), feature_contract("float16")
PARTS = [random_videos(FLOAT32, b=3, a=1), [], random_videos(FLOAT32, seed=1, d=5, c=2)]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_root")
    return Store.open(root)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def write_part(folder: StageFolder, part: int, videos: Any, contract: Any = FLOAT32) -> None:
    table_contract = STAGE.contract(FEATURES, features=contract)
    write_feature_part(folder, videos, contract=table_contract, part=part)


def test_every_video_comes_back_from_its_part(store: Store) -> None:
    reader = FeatureReader(write_parts(store, PARTS, contract=FLOAT32))
    assert reader.video_ids == ("a", "b", "c", "d")
    assert reader.contract == FLOAT32
    written = {video.video_id: video for part in PARTS for video in part}
    for name, video in written.items():
        found = reader.read(name)
        assert found.dtype == np.float32 and found.flags.writeable
        np.testing.assert_array_equal(found, video.values)
        np.testing.assert_array_equal(reader.center_seconds(name), video.center_seconds)
        assert reader.num_clips(name) == len(video.values)
        assert reader.holds(name, found, reader.center_seconds(name))
        assert not reader.holds(name, found * 2, reader.center_seconds(name))
    several = reader.read_all(["d", "a", "b"])
    assert several.offsets.tolist() == [0, 5, 6, 9]
    np.testing.assert_array_equal(several.of(0), written["d"].values)
    np.testing.assert_array_equal(several.of(2), written["b"].values)
    assert reader.read_all([]).values.shape == (0, DIM)
    with pytest.raises(KeyError, match="no features of video 'x'"):
        reader.read("x")


def test_half_precision_stays_half(local: Store) -> None:
    videos = random_videos(FLOAT16, a=3, b=2)
    reader = FeatureReader(write_parts(local, [videos], contract=FLOAT16))
    assert reader.read("b").dtype == np.float16
    together = reader.read_all(["b", "a"])
    assert together.values.dtype == np.float16
    np.testing.assert_array_equal(together.of(1), videos[0].values)


def test_the_order_of_a_walk_through_the_files(local: Store) -> None:
    reader = FeatureReader(write_parts(local, PARTS, contract=FLOAT32))
    assert reader.in_file_order(["a", "c", "b", "d"]) == [["b", "a"], ["d", "c"]]


def test_one_video_is_one_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the part's footer nor a second range: on an object store each costs a round trip."""
    folder = write_parts(store, PARTS, contract=FLOAT32)
    requests: list[tuple[str, int]] = []
    kind = LocalFile if store.is_local else RemoteFile
    open_file, read = kind.__init__, kind.read_into

    def counting_open(self: Any, *arguments: Any) -> None:
        requests.append(("open", 0))
        open_file(self, *arguments)

    def counting_read(self: Any, target: memoryview, *, offset: int) -> int:
        requests.append(("read", len(target)))
        return read(self, target, offset=offset)

    monkeypatch.setattr(kind, "__init__", counting_open)
    monkeypatch.setattr(kind, "read_into", counting_read)
    reader = FeatureReader(folder)
    monkeypatch.setattr(pq, "ParquetFile", None)
    reader.read("b")
    assert requests == [("open", 0), ("read", 3 * DIM * 4)]
    reader.read("a")
    assert requests[2:] == [("read", DIM * 4)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_with_what_they_are_given(store: Store, method: str) -> None:
    reader = FeatureReader(write_parts(store, PARTS, contract=FLOAT32))
    expected = reader.read("d")
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map_async(reader.read, ["d"] * 4).get(timeout=60)
    for values in found:
        np.testing.assert_array_equal(values, expected)


def test_a_hash_of_the_values_and_nothing_else(tmp_path: Path) -> None:
    """The same videos in other parts and another order have the same hash, others have not."""
    a, b, c = random_videos(FLOAT32, a=3, b=3, c=3)
    changed = replace(b, values=b.values * 2)
    hashes = []
    for number, parts in enumerate(
        [
            [[a, b], [c]],
            [[c], [], [b, a]],
            [[a, changed], [c]],
            [[a, replace(c, video_id="b")], [replace(b, video_id="c")]],
            [[a, b]],
        ]
    ):
        folder = write_parts(Store.open(str(tmp_path / str(number))), parts, contract=FLOAT32)
        hashes.append(features_hash(folder))
    assert hashes[0] == hashes[1]
    assert len(set(hashes[1:])) == 4


def test_the_index_is_a_table_of_equal_bytes(local: Store) -> None:
    folder = write_parts(local, PARTS, contract=FLOAT32)
    first = local.read_bytes(folder.file(INDEX_FILE))
    assert write_index(folder) == 4
    assert local.read_bytes(folder.file(INDEX_FILE)) == first
    rows = pq.read_table(local.path(folder.file(INDEX_FILE))).to_pylist()
    assert [(row["video_id"], row["part"], row["row_group"]) for row in rows] == [
        ("a", 0, 1),
        ("b", 0, 0),
        ("c", 2, 1),
        ("d", 2, 0),
    ]
    assert [row["num_clips"] for row in rows] == [1, 3, 2, 5]


def test_a_video_in_two_parts_is_refused(local: Store) -> None:
    """The first of the two was lost without a word."""
    folder = STAGE.folder(local)
    for part in range(2):
        write_part(folder, part, random_videos(FLOAT32, a=4))
    with pytest.raises(TableError, match="part-00001.parquet: video 'a' lies in part 0, too"):
        write_index(folder)


def test_parts_of_different_makes_are_refused(local: Store) -> None:
    folder = STAGE.folder(local)
    write_part(folder, 0, random_videos(FLOAT32, a=4))
    write_part(folder, 1, random_videos(FLOAT16, b=4), FLOAT16)
    with pytest.raises(TableError, match="the parts were not made in one way"):
        write_index(folder)


def test_what_cannot_be_read_from_is_refused(local: Store) -> None:
    folder = STAGE.folder(local)
    assert write_index(folder) == 0
    write_part(folder, 0, [])
    assert write_index(folder) == 0
    with pytest.raises(TableError, match="the features are not finished; run `extract` first"):
        FeatureReader(folder)
    folder.commit({})
    with pytest.raises(TableError, match="no video has features"):
        FeatureReader(folder)
    local.delete_file(folder.file(INDEX_FILE))
    with pytest.raises(TableError, match="holds no features; the folder of extract or"):
        FeatureReader(folder)
    local.write_bytes(folder.file(INDEX_FILE), b"PAR1 and no more")
    with pytest.raises(TableError, match="features_index.parquet is damaged"):
        FeatureReader(folder)


def test_another_table_in_the_place_of_features_is_refused(local: Store) -> None:
    folder = STAGE.folder(local)
    path = Path(local.path(feature_part(folder, 0)))
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"video_id": ["a"], "score": [1.0]}), path)
    with pytest.raises(TableError, match="not a FEATURES table: no column 'clip_index'"):
        write_index(folder)
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(TableError, match="part-00000.parquet: cannot be read as Parquet"):
        write_index(folder)


def test_a_part_that_changed_behind_the_index_is_noticed(local: Store) -> None:
    folder = write_parts(local, PARTS, contract=FLOAT32)
    path = Path(local.path(feature_part(folder, 2)))
    data, values = path.read_bytes(), PARTS[2][0].values.tobytes()
    path.write_bytes(data.replace(values, values[::-1]))
    reader = FeatureReader(folder)
    for name, is_whole in (("c", True), ("d", False)):
        assert reader.holds(name, reader.read(name), reader.center_seconds(name)) == is_whole
    path.write_bytes(data[:100])
    with pytest.raises(TableError, match="part-00002.parquet: must hold 80 bytes from byte"):
        FeatureReader(folder).read("d")
    path.unlink()
    with pytest.raises(TableError, match="part-00002.parquet: cannot be read"):
        FeatureReader(folder).read("d")


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 3], "1 videos|2 videos"), ([0, 1, 2], "must end at the 3 clips, got 2")],
)
def test_a_feature_set_checks_its_offsets(offsets: list[int], message: str) -> None:
    values = np.zeros((3, DIM), np.float32)
    with pytest.raises(ValueError, match=message):
        FeatureSet(("a", "b"), np.array(offsets), values, FLOAT32)


def test_list_matrix_of_slices_chunks_and_nothing() -> None:
    values = np.arange(12, dtype=np.float32)
    array = pa.FixedSizeListArray.from_arrays(pa.array(values), 3)
    column = pa.chunked_array([array.slice(1, 2), array.slice(3)])
    np.testing.assert_array_equal(list_matrix(column), values.reshape(4, 3)[1:])
    assert list_matrix(pa.chunked_array([], type=array.type)).shape == (0, 3)
