"""Functions and actors over rows with Ray Data: every row comes back, once."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.exceptions import ObjectLostError, RayError, RayTaskError, UserCodeException

from tfn_platform.errors import ResourceError
from tfn_platform.map_table import (
    ActorStage,
    Row,
    _is_own_mistake,
    _num_tasks,
    _tables_from,
    _wait_until_free,
    map_rows,
    stream_through,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

BLOCK_BYTES = 1 << 20
NUM_CPUS = 4
"""Of the fixture's Ray."""


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


class Sleeper:
    """Gives back what it gets after as many seconds as it says."""

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(table["seconds"][0].as_py())
        return table


def sleeping(*seconds: float) -> list[pa.Table]:
    return [pa.table({"seconds": [value]}) for value in seconds]


def test_rows_come_back_in_order() -> None:
    rows: list[Row] = [{"value": value, "text": f"t{value}"} for value in range(100)]
    expected = [{"value": value**2, "text": f"t{value}!", "missing": None} for value in range(100)]
    assert list(map_rows(rows, square, num_cpus=0.5)) == expected
    assert list(map_rows(pa.Table.from_pylist(rows), square)) == expected
    assert list(map_rows([], square)) == list(map_rows(pa.table({"value": []}), square)) == []


OTHERS_SECONDS = 60


def wait_for_the_others(row: Row) -> Row:
    folder = Path(row["folder"])
    if row["value"] == 0:
        deadline = time.monotonic() + OTHERS_SECONDS
        while len(list(folder.iterdir())) < row["num_others"] and time.monotonic() < deadline:
            time.sleep(0.05)
    return row


def test_a_slow_row_holds_back_no_others(tmp_path: Path) -> None:
    """The first waits until the caller has seen the others; in order, it saw none of them.

    But for one: Ray Data hands on what it has when the next is there.
    """
    rows = [{"value": n, "folder": str(tmp_path), "num_others": 18} for n in range(20)]
    begin = time.monotonic()
    values = []
    for row in map_rows(pa.Table.from_pylist(rows), wait_for_the_others, ordered=False):
        values.append(row["value"])
        (tmp_path / str(row["value"])).touch()
    assert sorted(values) == list(range(20)) and values.index(0) >= 18
    assert time.monotonic() < begin + OTHERS_SECONDS


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


class Reporter:
    """Says what its environment holds."""

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.table({"value": [os.environ.get("TFN_A_TEST", "")]})


def test_actors_have_the_environment_of_their_stage() -> None:
    stage = ActorStage(Reporter, environment={"TFN_A_TEST": "here"})
    assert stream([pa.table({"a": [1]})], [stage]) == [{"value": "here"}]


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


def assert_all_cpus_are_free() -> None:
    """Ray's own patience ends the wait for an actor of the stream before, which sleeps on."""
    rows = stream(sleeping(0), [ActorStage(Sleeper, num_cpus=NUM_CPUS)], patience_seconds=60)
    assert rows == [{"seconds": 0}]


def test_a_stream_in_which_nothing_moves_is_given_up() -> None:
    """A lost machine's actors may wait for ever for another one.

    The next stream waited for the CPUs of actors that slept on, or that had got them meanwhile.
    """
    stages = [ActorStage(Sleeper, min_actors=5, max_actors=5), ActorStage(Sleeper, num_cpus=0)]
    made = stream_through(
        sleeping(0, 0, 0, *[600.0] * 6), stages, block_bytes=BLOCK_BYTES, patience_seconds=10
    )
    assert next(made).num_rows  # So some have started, and are called again.
    with pytest.raises(ResourceError, match="^nothing moved for 10 seconds$"):
        list(made)
    assert_all_cpus_are_free()


def test_a_stream_that_is_closed_lets_go_of_all() -> None:
    """As when too many videos are in quarantine, or somebody interrupts."""
    made = stream_through(
        sleeping(0, 0, 0, *[600.0] * 4),
        [ActorStage(Sleeper, min_actors=NUM_CPUS, max_actors=NUM_CPUS)],
        block_bytes=BLOCK_BYTES,
        patience_seconds=120,
    )
    assert next(made).to_pylist() == [{"seconds": 0}]
    made.close()
    assert_all_cpus_are_free()


def test_pools_may_be_larger_than_what_is_there() -> None:
    """As when Ray has not noticed yet that a machine is gone."""
    stages = [
        ActorStage(Sleeper, max_actors=3 * NUM_CPUS),
        ActorStage(Sleeper, min_actors=2, max_actors=2 * NUM_CPUS, num_cpus=0.5),
    ]
    seconds = [0.1 * number for number in range(12)]
    rows = stream(sleeping(*seconds), stages)
    assert sorted(row["seconds"] for row in rows) == seconds


class Owner:
    """Owns a stream that does not move, and does not know it."""

    def next_table(self) -> None:
        time.sleep(600)


def test_an_owner_that_hangs_is_given_up() -> None:
    owner: Any = ray.remote(num_cpus=1)(Owner).remote()
    with pytest.raises(ResourceError, match="nothing came for 8 seconds"):
        next(_tables_from(owner, patience_seconds=8))
    assert_all_cpus_are_free()


def test_a_stream_is_given_up_sooner_where_a_machine_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waited for a lost machine did so for all its patience, ten minutes by default."""
    monkeypatch.setattr("tfn_platform.map_table.LOST_POLL_SECONDS", 0.5)
    monkeypatch.setattr("tfn_platform.map_table.LOST_PATIENCE_SECONDS", 3.0)
    there = [{"one", "two"}, {"one", "two"}, {"one", "two", "three"}]
    monkeypatch.setattr(
        "tfn_platform.map_table._machines", lambda: there.pop(0) if there else {"one", "three"}
    )
    owner: Any = ray.remote(num_cpus=1)(Owner).remote()
    with pytest.raises(ResourceError, match="a machine was lost, and nothing came for 3 seconds"):
        next(_tables_from(owner, patience_seconds=600))
    assert not there, "nothing is lost where one more has come"
    assert_all_cpus_are_free()


def test_what_is_not_free_again_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is gone is not waited for."""
    monkeypatch.setattr("tfn_platform.map_table.FREE_AGAIN_SECONDS", 10.0)
    assert _wait_until_free({"CPU": 1000.0, "GPU": 8.0}) == ""
    taker: Any = ray.remote(num_cpus=1)(Sleeper).remote()
    ray.get(taker.__call__.remote(sleeping(0)[0]))
    assert "10 seconds later 1 CPU of what was free" in _wait_until_free({"CPU": 1000.0})
    ray.kill(taker)
    assert _wait_until_free({"CPU": 1000.0}) == ""
