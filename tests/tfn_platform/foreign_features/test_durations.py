"""Durations from a table in one of three shapes, or from an annotation."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.durations import read_durations
from tfn_platform.store import Store

ROWS = pd.DataFrame(
    {
        "video_id": ["a", "b", "c"],
        "subset": ["training", "validation", "validation"],
        "duration_seconds": [10.5, 20.0, 7.25],
    }
)
EXPECTED = {"a": 10.5, "b": 20.0, "c": 7.25}


def read(path: Path, *, layout: str = "table", subsets: tuple[str, ...] = ()):
    return read_durations(Store.open(str(path.parent)), path.name, layout=layout, subsets=subsets)


def test_tables(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "a.csv", index=False)
    ROWS.to_parquet(tmp_path / "a.parquet")
    folder = tmp_path / "videos"
    folder.mkdir()
    ROWS[:1].to_parquet(folder / "part-00000.parquet")
    ROWS[1:].to_parquet(folder / "part-00001.parquet")
    for name in ("a.csv", "a.parquet", "videos"):
        assert read(tmp_path / name) == EXPECTED
        assert read(tmp_path / name, subsets=("validation",)) == {"b": 20.0, "c": 7.25}


def test_names_that_are_numbers_stay_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("video,seconds\n0012,3\n0013,4\n")
    assert read(tmp_path / "a.csv") == {"0012": 3.0, "0013": 4.0}


def test_an_empty_duration_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("video_id,duration_seconds\na,\nb,2.5\n")
    assert read(tmp_path / "a.csv") == {"a": None, "b": 2.5}


def test_annotations(tmp_path: Path) -> None:
    database = {
        "a": {"subset": "training", "duration": "10.5", "annotations": []},
        "b": {"subset": "validation", "duration": None, "annotations": []},
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": database}))
    assert read(path, layout="activitynet") == {"a": 10.5, "b": None}
    assert read(path, layout="activitynet", subsets=("training",)) == {"a": 10.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video_id,length\na,1\n", "no column duration_seconds or"),
        ("name,duration_seconds\na,1\n", "no column video_id or"),
        ("video_id,duration_seconds\na,1\na,1\n", "twice"),
        ("video_id,duration_seconds\na,-1\n", "cannot last"),
        ("video_id,duration_seconds\na,inf\n", "cannot last"),
        ("video_id,duration_seconds\na,nan\n", "cannot last"),
        ("video_id,duration_seconds\na,word\n", "numbers of seconds"),
        ("", "not a readable table"),
        ("video_id,duration_seconds\n,1\n", "a row has no video's name"),
        ("video_id,seconds,video_id\na,1,b\n", "has the column video_id more than once"),
        ("video_id,duration,duration\na,1,2\n", "has the column duration more than once"),
    ],
)
def test_refusals(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "a.csv")


def test_a_row_without_a_subset_is_of_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("video_id,seconds,subset\na,1,\nb,2,training\n")
    assert read(tmp_path / "a.csv", subsets=("training",)) == {"b": 2.0}
    with pytest.raises(DataError, match="no video of subset 'x'; it has"):
        read(tmp_path / "a.csv", subsets=("x",))


def test_what_is_not_there(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="no video of subset 'testing'"):
        read(tmp_path / "a.csv", subsets=("testing",))
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "b.parquet")
    (tmp_path / "b.parquet").write_bytes(b"text")
    with pytest.raises(DataError, match="not a readable table"):
        read(tmp_path / "b.parquet")


def test_real_durations(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "annotations" / "anet13"
    table = read(folder / "video_info_new.csv")
    annotation = read(folder / "anet13_validation_4926.json", layout="activitynet")
    assert len(table) == 19228
    assert table["v_---9CpRcKoU"] == 14.07
    assert sum(seconds is None for seconds in annotation.values()) == 198
