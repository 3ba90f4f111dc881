"""Functions and actors over rows with Ray Data: every row comes back, once."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tfn_platform.errors import ResourceError
from tfn_platform.map_table import ActorStage, Row, map_rows, stream_through

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

BLOCK_BYTES = 1 << 20


def square(row: Row) -> Row:
    time.sleep(1.0 if row["value"] == 0 else 0)  # The first is not the first to be ready.
    return {"value": row["value"] ** 2, "text": row["text"] + "!", "missing": None}


class Expander:
    """Yields each row as often as it says, with its process."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in table.to_pylist():
            for copy in range(row["copies"]):
                payload = pa.array([bytes([copy]) * self._size], pa.large_binary())
                yield pa.table(
                    {"name": [row["name"]], "copy": [copy], "payload": payload, "by": [os.getpid()]}
                )


class Scorer:
    """Gives each row a score, and says in how many calls and in which process."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def __call__(self, table: pa.Table) -> pa.Table:
        scores = [self._factor * len(payload.as_py()) for payload in table["payload"]]
        return (
            table.drop_columns(["payload"])
            .append_column("score", pa.array(scores))
            .append_column("process", pa.array([os.getpid()] * table.num_rows))
            .append_column("rows_of_call", pa.array([table.num_rows] * table.num_rows))
        )


class Faulty:
    """Has a mistake in it."""

    def __call__(self, table: pa.Table) -> pa.Table:
        raise ZeroDivisionError("a mistake")


class Stuck:
    """Never gives anything back."""

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(3600)
        return table


def test_rows_come_back_in_order() -> None:
    rows: list[Row] = [{"value": value, "text": f"t{value}"} for value in range(100)]
    assert list(map_rows(rows, square, num_cpus=0.5, num_tasks=20)) == [
        {"value": value**2, "text": f"t{value}!", "missing": None} for value in range(100)
    ]
    assert list(map_rows([], square)) == []


def test_an_error_in_a_row_reaches_the_caller() -> None:
    with pytest.raises(Exception, match="unsupported operand"):
        list(map_rows([{"value": "no number", "text": ""}], square))


def stream(
    tables: list[pa.Table], stages: list[ActorStage], *, patience_seconds: float = 120.0
) -> list[dict[str, Any]]:
    made = stream_through(
        tables, stages, block_bytes=BLOCK_BYTES, patience_seconds=patience_seconds
    )
    return [row for table in made for row in table.to_pylist()]


def test_all_rows_come_back_from_two_pools() -> None:
    """The pools are apart, and what is small travels together."""
    tables = [pa.table({"name": [f"v{i}", f"w{i}"], "copies": [i % 4, 1]}) for i in range(10)]
    stages = [
        ActorStage(Expander, {"size": 10}, num_cpus=1),
        ActorStage(Scorer, {"factor": 3}, max_actors=2, num_cpus=1),
    ]
    rows = stream(tables, stages)
    expected = [(f"v{i}", copy, 30) for i in range(10) for copy in range(i % 4)]
    expected += [(f"w{i}", 0, 30) for i in range(10)]
    assert sorted((r["name"], r["copy"], r["score"]) for r in rows) == sorted(expected)
    assert {r["process"] for r in rows}.isdisjoint({r["by"] for r in rows})
    assert max(r["rows_of_call"] for r in rows) == 4
    assert stream([], stages) == []


def test_what_is_large_is_handed_on_in_blocks() -> None:
    """Ten rows of 300 kB, in blocks of about 1 MB."""
    table = pa.table({"name": ["large"], "copies": [10]})
    stages = [ActorStage(Expander, {"size": 300_000}), ActorStage(Scorer, {"factor": 1})]
    rows = stream([table], stages)
    assert sorted(r["copy"] for r in rows) == list(range(10))
    assert max(r["rows_of_call"] for r in rows) <= 5


def test_a_mistake_is_not_taken_for_a_lost_machine() -> None:
    with pytest.raises(Exception, match="a mistake") as error:
        stream([pa.table({"a": [1]})], [ActorStage(Faulty)])
    assert not isinstance(error.value, ResourceError)


def test_a_stream_in_which_nothing_moves_is_given_up() -> None:
    """A lost machine's actors may wait for ever for another one."""
    with pytest.raises(ResourceError, match="nothing moved for 5 seconds"):
        stream([pa.table({"a": [1]})], [ActorStage(Stuck)], patience_seconds=5)
