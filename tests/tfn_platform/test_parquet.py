"""Tables on disk: parts in order, wrong tables refused, hashes of content."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfn_platform.errors import TableError
from tfn_platform.parquet import (
    content_hash,
    part_name,
    read_part,
    read_parts,
    read_table,
    write_table,
)
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import DETECTIONS, FEATURES, PROPOSALS

STAGE = Stage("fuse", {})
CONTRACT = STAGE.contract(DETECTIONS)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return STAGE.folder(Store.open(str(tmp_path)))


def detections(*scores: float) -> pa.Table:
    count = len(scores)
    columns: dict[str, Any] = {
        "video_id": [f"v{i}" for i in range(count)],
        "label": ["run"] * count,
        "start_seconds": [float(i) for i in range(count)],
        "end_seconds": [i + 0.5 for i in range(count)],
        "score": list(scores),
    }
    return pa.table(columns, schema=DETECTIONS.schema)


def write(folder: StageFolder, rows: pa.Table, part: int = 0, **options: Any) -> None:
    write_table(folder, DETECTIONS, rows, contract=CONTRACT, part=part, **options)


def test_parts_are_read_in_the_order_of_their_numbers(folder: StageFolder) -> None:
    for part in (10, 0, 2):
        write(folder, detections(float(part)), part=part)
    write(folder, detections(), part=1)
    rows, contract = read_parts(folder, DETECTIONS)
    assert rows["score"].to_pylist() == [0.0, 2.0, 10.0]
    assert rows.schema == DETECTIONS.schema
    assert contract == CONTRACT
    assert read_part(folder, DETECTIONS, 10)["score"].to_pylist() == [10.0]


def test_writing_a_part_again_replaces_it(folder: StageFolder) -> None:
    write(folder, detections(1.0, 2.0))
    write(folder, detections(3.0))
    assert read_parts(folder, DETECTIONS)[0]["score"].to_pylist() == [3.0]


def test_only_the_tables_of_finished_stages_are_read(folder: StageFolder) -> None:
    write(folder, detections(1.0))
    with pytest.raises(TableError, match="has not finished; run it first"):
        read_table(folder, DETECTIONS)
    folder.commit({})
    assert read_table(folder, DETECTIONS)[0].num_rows == 1
    with pytest.raises(TableError, match="there is no PROPOSALS table"):
        read_table(folder, PROPOSALS)


def test_an_empty_table_is_a_table(folder: StageFolder) -> None:
    write(folder, detections())
    rows, _ = read_parts(folder, DETECTIONS)
    assert rows.num_rows == 0
    assert rows.schema == DETECTIONS.schema


def test_row_groups_are_as_asked_for(folder: StageFolder) -> None:
    write(folder, detections(*range(6)), rows_per_group=[1, 3, 2])
    path = f"{folder.store.root}/{folder.table('detections')}/{part_name(0)}"
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [1, 3, 2]
    assert file.read_row_group(1)["score"].to_pylist() == [1.0, 2.0, 3.0]


def test_row_groups_that_leave_rows_out_are_refused(folder: StageFolder) -> None:
    """The rows beyond the last row group were lost without a word."""
    with pytest.raises(ValueError, match="must sum to the 6 rows, got 5"):
        write(folder, detections(*range(6)), rows_per_group=[3, 2])


def test_columns_in_another_order_are_put_in_order(folder: StageFolder) -> None:
    write(folder, detections(1.0))
    write(folder, detections(2.0).select(DETECTIONS.schema.names[::-1]), part=1)
    assert read_parts(folder, DETECTIONS)[0]["score"].to_pylist() == [1.0, 2.0]


def test_what_is_not_the_table_is_not_written(folder: StageFolder) -> None:
    with pytest.raises(TableError, match=r"detections/part-00000.parquet: .*no column 'score'"):
        write(folder, detections(1.0).drop_columns(["score"]))
    with pytest.raises(TableError, match="column 'label' of DETECTIONS must be string, got int64"):
        write(folder, detections(1.0).set_column(1, "label", pa.array([3])))
    with pytest.raises(TableError, match="column 'label' of DETECTIONS has empty values"):
        write(folder, detections(1.0).set_column(1, "label", pa.array([None], pa.string())))
    with pytest.raises(TableError, match="DETECTIONS cannot carry a contract of PROPOSALS"):
        proposals = STAGE.contract(PROPOSALS)
        write_table(folder, DETECTIONS, detections(1.0), contract=proposals)
    assert not folder.store.exists(folder.table("detections"))


def test_what_is_not_the_table_is_not_read(folder: StageFolder) -> None:
    store, name = folder.store, f"{folder.table('detections')}/{part_name(0)}"
    store.write_bytes(name, b"PAR1 is not enough")
    with pytest.raises(TableError, match=r"part-00000.parquet: cannot be read as Parquet"):
        read_parts(folder, DETECTIONS)
    pq.write_table(detections(1.0), store.path(name))
    with pytest.raises(TableError, match=r"part-00000.parquet: carries no contract"):
        read_parts(folder, DETECTIONS)
    foreign = detections(1.0).replace_schema_metadata(STAGE.contract(PROPOSALS).to_metadata())
    pq.write_table(foreign, store.path(name))
    with pytest.raises(TableError, match="must hold DETECTIONS, got PROPOSALS"):
        read_parts(folder, DETECTIONS)
    with pytest.raises(TableError, match=r"part-00007.parquet: cannot be read"):
        read_part(folder, DETECTIONS, 7)


def test_parts_of_different_list_lengths_do_not_go_together(folder: StageFolder) -> None:
    for part, length in enumerate((2, 3)):
        columns: dict[str, Any] = {
            "video_id": ["v"],
            "clip_index": [0],
            "center_seconds": [0.5],
            "feature": [[0.0] * length],
        }
        rows = pa.table(columns, schema=FEATURES.sized(length))
        write_table(folder, FEATURES, rows, contract=STAGE.contract(FEATURES), part=part)
    with pytest.raises(TableError, match="the parts of FEATURES do not fit together"):
        read_parts(folder, FEATURES)


def test_content_hash_does_not_depend_on_the_order_of_rows_and_columns_or_on_parts() -> None:
    rows = detections(0.5, 0.25, 0.125, 0.5)
    expected = content_hash(rows)
    shuffled = rows.take([2, 0, 3, 1])
    assert content_hash(shuffled) == expected
    assert content_hash(shuffled.select(DETECTIONS.schema.names[::-1])) == expected
    assert content_hash(pa.concat_tables([rows.slice(2), rows.slice(0, 2)])) == expected


def test_content_hash_sees_one_ulp_and_one_letter() -> None:
    rows = detections(0.5, 0.25)
    hashes = {
        content_hash(rows),
        content_hash(detections(float(np.nextafter(0.5, 1)), 0.25)),
        content_hash(rows.set_column(1, "label", pa.array(["run", "ruN"]))),
        content_hash(rows.set_column(1, "label", pa.array(["ru", "nrun"]))),
        content_hash(rows.slice(1)),
        content_hash(rows.slice(0, 0)),
        content_hash(pa.concat_tables([rows, rows])),
    }
    assert len(hashes) == 7
