"""Manifests: columns that mean something are read, nonsense in them is named by its row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tfn_jobs.video_manifest import read_manifest
from tfn_platform.errors import DataError


def write(path: Path, columns: dict[str, Any]) -> str:
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return str(path)


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_columns(tmp_path: Path, name: str) -> None:
    columns = {
        "video_id": ["007", "1e3"],
        "path": ["a.mp4", "/abs/b c.mp4"],
        "duration_seconds": [12, None],
        "subset": ["", "testing"],
        "notes": ["null", "x"],
    }
    rows = read_manifest(write(tmp_path / name, columns)).to_pydict()
    assert rows == {
        "subset": [None, "testing"],
        # Ids that look like numbers stay as they are written.
        "video_id": ["007", "1e3"],
        "uri": [f"{tmp_path}/a.mp4", "/abs/b c.mp4"],
        "duration_seconds": [12.0, None],
    }


def test_addresses_are_made_readable(tmp_path: Path) -> None:
    uris = ["s3://b/a b.mp4", "file:///data/a%20b.mp4", "../up.mp4"]
    rows = read_manifest(write(tmp_path / "list.csv", {"uri": uris}))
    assert rows["uri"].to_pylist() == [
        "s3://b/a%20b.mp4",
        "/data/a b.mp4",
        f"{tmp_path}/../up.mp4",
    ]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"file": ["a.mp4"]}, "a manifest needs a column 'uri' or 'path' .*, got none"),
        ({"uri": ["a"], "path": ["b"]}, "a column 'uri' or 'path' .one of them., got uri, path"),
        (
            {"uri": ["a", "", None], "x": [1, 2, 3]},
            "column 'uri' is empty; 2 rows are wrong, the first is number 2",
        ),
        ({"uri": ["a"], "video_id": [""]}, "column 'video_id' is empty; 1 rows are wrong"),
        ({"uri": ["a", "b"], "video_id": ["c", None]}, "column 'video_id' is empty; 1 rows"),
        (
            {"uri": ["a", "b"], "duration_seconds": [1.0, -2.0]},
            r"'duration_seconds' must be a positive number .* number 2 after the header: -2\.0",
        ),
        ({"uri": ["a"], "duration_seconds": [float("nan")]}, "must be a positive number .* nan"),
        ({"uri": ["a"], "duration_seconds": ["long"]}, "cannot be read as a manifest"),
    ],
)
@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_nonsense_is_refused(
    tmp_path: Path, name: str, columns: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        read_manifest(write(tmp_path / name, columns))


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_column_that_is_there_twice(tmp_path: Path, name: str) -> None:
    """It ended in an error of pyarrow's, with a traceback."""
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["uri", "uri"])
    path = tmp_path / name
    (pyarrow.csv.write_csv if name.endswith(".csv") else pq.write_table)(table, path)
    with pytest.raises(DataError, match=f"{name}: .*has the column 'uri' more than once"):
        read_manifest(str(path))


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "noise.csv", "noise.parquet"])
def test_files_that_are_no_manifest(tmp_path: Path, name: str) -> None:
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    (tmp_path / "noise.csv").write_bytes(b"uri,x\na\n")
    with pytest.raises(DataError, match=f"{name}: cannot be read as a manifest"):
        read_manifest(str(tmp_path / name))
