"""Functions and actors over rows with Ray Data: every row comes back, once."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import ObjectLostError, RayError, RayTaskError, UserCodeException

from tfn_platform.errors import ResourceError
from tfn_platform.map_table import (
    ActorStage,
    Row,
    _is_own_mistake,
    _num_tasks,
    map_rows,
    stream_through,
)

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
    """Gives nothing back for longer than anybody waits.

    But not for ever: Ray lets an actor finish its call, and keep its CPU so long, even when the
    stream that it belongs to has been given up.
    """

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(20)
        return table


def test_rows_come_back_in_order() -> None:
    rows: list[Row] = [{"value": value, "text": f"t{value}"} for value in range(100)]
    expected = [{"value": value**2, "text": f"t{value}!", "missing": None} for value in range(100)]
    assert list(map_rows(rows, square, num_cpus=0.5)) == expected
    assert list(map_rows(pa.Table.from_pylist(rows), square)) == expected
    assert list(map_rows([], square)) == list(map_rows(pa.table({"value": []}), square)) == []


def wait_for_all_others(row: Row) -> Row:
    folder = Path(row["folder"])
    if row["value"] == 0:
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < row["num_others"] and time.monotonic() < deadline:
            time.sleep(0.05)
    return row


def test_a_slow_row_holds_back_no_others(tmp_path: Path) -> None:
    """The first waits until the caller has seen all the others; in order, it saw none of them."""
    rows = [{"value": n, "folder": str(tmp_path), "num_others": 19} for n in range(20)]
    values = []
    for row in map_rows(pa.Table.from_pylist(rows), wait_for_all_others, ordered=False):
        values.append(row["value"])
        (tmp_path / str(row["value"])).touch()
    assert sorted(values) == list(range(20)) and values[-1] == 0


@pytest.mark.parametrize(
    ("num_rows", "cpus", "num_tasks"),
    [
        (3, 4, 3),
        (1000, 2, 64),
        (1000, 100.5, 404),
        (50_000, 100, 781),
        (500_000, 16, 7812),
        (10**7, 16, 10_000),
    ],
)
def test_tasks_are_many_and_small(num_rows: int, cpus: float, num_tasks: int) -> None:
    assert _num_tasks(num_rows, cpus=cpus) == num_tasks


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


@pytest.mark.parametrize(
    ("error", "is_own"),
    [
        (RayTaskError("call", "trace", ValueError("a mistake")), True),
        (RayTaskError("call", "trace", UserCodeException("a mistake")), True),
        (RayTaskError("call", "trace", ObjectLostError("0" * 56, None, "")), False),
        (ObjectLostError("0" * 56, None, ""), False),
    ],
)
def test_what_ray_could_not_bring_is_no_mistake_of_the_actor(error: RayError, is_own: bool) -> None:
    """An object that was lost with its machine comes as an error of the task that asked for it."""
    assert _is_own_mistake(error) == is_own


def test_a_stream_in_which_nothing_moves_is_given_up() -> None:
    """A lost machine's actors may wait for ever for another one."""
    with pytest.raises(ResourceError, match="nothing moved for 5 seconds"):
        stream([pa.table({"a": [1]})], [ActorStage(Stuck)], patience_seconds=5)
