from pathlib import Path

import pytest

from tfn_platform.datasets.annotation_fields import (
    iter_csv_rows,
    load_json_object,
    parse_duration,
    parse_seconds,
)
from tfn_platform.errors import DataError


def test_seconds_may_be_spelt_as_strings() -> None:
    assert parse_seconds(" 1.5", where="x") == 1.5
    assert parse_duration("", where="x") is None
    assert parse_duration(None, where="x") is None
    for wrong in ("soon", None, True, [1.0]):
        with pytest.raises(DataError, match="here must be a number of seconds"):
            parse_seconds(wrong, where="here")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match=r"a\.json"):
        load_json_object(path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json is not JSON"):
        load_json_object(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="must be a JSON object, got list"):
        load_json_object(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"cannot read .*a\.json"):
        load_json_object(path)


def test_csv_rows_know_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffvideo,start\nv,1\nw\n", encoding="utf-8")
    rows = iter_csv_rows(path, columns=("video", "start"))
    assert next(rows)[1] == {"video": "v", "start": "1"}
    with pytest.raises(DataError, match="line 3: the row ends before column start"):
        next(rows)
    with pytest.raises(DataError, match="lacks the columns end; it has video, start"):
        next(iter_csv_rows(path, columns=("video", "end")))
