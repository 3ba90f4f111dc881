"""Functions and models over rows with Ray Data: every row comes back, once."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tfn_platform.map_table import ModelStage, Row, map_rows, map_through_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


def square(row: Row) -> Row:
    time.sleep(1.0 if row["value"] == 0 else 0)  # The first is not the first to be ready.
    return {"value": row["value"] ** 2, "text": row["text"] + "!", "missing": None}


def expand(row: Row) -> Iterator[Row]:
    for copy in range(row["copies"]):
        yield {"name": row["name"], "copy": copy, "payload": bytes([copy]) * 10}


class Scorer:
    """Gives each row a score, and says which process it lives in."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def __call__(self, batch: pa.Table) -> pa.Table:
        scores = [self._factor * len(payload.as_py()) for payload in batch["payload"]]
        process = [os.getpid()] * batch.num_rows
        return (
            batch.drop_columns(["payload"])
            .append_column("score", pa.array(scores))
            .append_column("process", pa.array(process))
        )


def test_rows_come_back_in_order() -> None:
    rows: list[Row] = [{"value": value, "text": f"t{value}"} for value in range(100)]
    assert list(map_rows(rows, square, num_cpus=0.5, num_tasks=20)) == [
        {"value": value**2, "text": f"t{value}!", "missing": None} for value in range(100)
    ]
    assert list(map_rows([], square)) == []


def test_an_error_in_a_row_reaches_the_caller() -> None:
    with pytest.raises(Exception, match="unsupported operand"):
        list(map_rows([{"value": "no number", "text": ""}], square))


@pytest.mark.parametrize("num_cpus", [0.5, 1])
def test_all_expanded_rows_come_back_from_the_model(num_cpus: float) -> None:
    rows: list[Row] = [{"name": f"v{i}", "copies": i % 4} for i in range(10)]
    stage = ModelStage(Scorer, {"factor": 3}, num_actors=1, rows_per_call=3, num_cpus=1)
    results = list(map_through_model(rows, expand, stage, num_cpus=num_cpus))
    got: list[tuple[Any, ...]] = sorted((r["name"], r["copy"], r["score"]) for r in results)
    assert got == sorted((r["name"], copy, 30) for r in rows for copy in range(r["copies"]))
    assert len({r["process"] for r in results}) == 1
    assert list(map_through_model([], expand, stage)) == []
