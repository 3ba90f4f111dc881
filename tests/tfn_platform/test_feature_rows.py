"""One video a row, whatever their lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.data

from tests.some_features import feature_contract, random_videos, write_parts
from tfn_platform import feature_rows
from tfn_platform.feature_index import FeatureReader
from tfn_platform.feature_rows import features_dataset
from tfn_platform.store import StageFolder, Store

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(params=["float16", "float32"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> StageFolder:
    contract = feature_contract(request.param)
    parts = [
        random_videos(contract, b=3, a=1, e=700),
        random_videos(contract, seed=1, d=5, c=2),
    ]
    return write_parts(Store.open(str(tmp_path)), parts, contract=contract)


def rows_of(dataset: ray.data.Dataset) -> dict[str, dict[str, Any]]:
    return {row["video_id"]: row for row in dataset.take_all()}


def test_every_video_is_a_row(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_rows, "VIDEOS_PER_TASK", 2)
    reader = FeatureReader(folder)
    rows = rows_of(features_dataset(folder, columns=feature_rows.COLUMNS))
    assert sorted(rows) == list(reader.video_ids)
    for name, row in rows.items():
        assert row["features"].dtype == reader.dtype
        np.testing.assert_array_equal(row["features"], reader.read(name))
        np.testing.assert_array_equal(row["center_seconds"], reader.center_seconds(name))
        assert row["num_clips"] == reader.num_clips(name)


def test_some_videos_and_columns(folder: StageFolder) -> None:
    rows = rows_of(features_dataset(folder, video_ids=["c", "a"]))
    assert sorted(rows) == ["a", "c"]
    assert rows["c"].keys() == {"video_id", "features"}
    assert rows["c"]["features"].shape == (2, 4)
    assert rows_of(features_dataset(folder, video_ids=[])) == {}
    counts = features_dataset(folder, columns=["num_clips"]).sum("num_clips")
    assert counts == 711


def test_the_rows_can_be_mapped_in_batches(folder: StageFolder) -> None:
    def lengths(batch: dict[str, Any]) -> dict[str, Any]:
        return {"length": [len(values) for values in batch["features"]]}

    mapped = features_dataset(folder).map_batches(lengths, batch_size=3)
    assert sorted(row["length"] for row in mapped.take_all()) == [1, 2, 3, 5, 700]


def test_what_is_not_there_is_refused(folder: StageFolder) -> None:
    with pytest.raises(ValueError, match="columns must be some of video_id, .* got values"):
        features_dataset(folder, columns=["values"])
    with pytest.raises(ValueError, match="got none"):
        features_dataset(folder, columns=[])
    with pytest.raises(KeyError, match="no features of video 'x'"):
        features_dataset(folder, video_ids=["x"])
