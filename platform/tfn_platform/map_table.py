"""Run a function, or a chain of actors, over rows with Ray Data; results come as they are made."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError

from tfn_platform.cluster import cluster_totals
from tfn_platform.errors import ResourceError

Row = dict[str, Any]

DEFAULT_BLOCK_BYTES = 128 << 20
FOR_EVER = -1
MIN_TASKS = 64
TASKS_PER_CPU = 4
ROWS_PER_TASK = 64
MAX_TASKS = 10_000
"""Each task costs the driver some milliseconds."""


@dataclass(frozen=True)
class ActorStage:
    """A class whose instances live in a pool of actors and turn tables into tables.

    Attributes:
        actor: the class; called with a `pyarrow.Table`, gives or yields others.
        arguments: for its constructor.
        min_actors: how many there are at least.
        max_actors: how many there are at most; between the two, as work piles up and CPUs are free.
        num_cpus: logical CPUs of an actor.
        num_gpus: GPUs of an actor.
    """

    actor: type
    arguments: dict[str, Any] = field(default_factory=dict)
    min_actors: int = 1
    max_actors: int = 1
    num_cpus: float = 1
    num_gpus: float = 0


def map_rows(
    rows: Sequence[Row] | pa.Table,
    function: Callable[[Row], Row],
    *,
    num_cpus: float = 1,
    ordered: bool = True,
) -> Iterator[Row]:
    """Apply `function` to each row in parallel, some rows a task.

    Args:
        rows: as Python objects, or far smaller, as a table.
        function: gives one row for each.
        num_cpus: logical CPUs of a task.
        ordered: whether results come in the order of the rows, where a row that takes long holds
            back all that follow; otherwise they come as soon as their task has ended.
    """
    if not len(rows):
        return
    _configure(preserve_order=ordered, block_bytes=DEFAULT_BLOCK_BYTES, patience_seconds=FOR_EVER)
    num_tasks = _num_tasks(len(rows), cpus=cluster_totals().cpus / num_cpus)
    if isinstance(rows, pa.Table):
        # Two neighbours differ by one row at most.
        ends = [len(rows) * (task + 1) // num_tasks for task in range(num_tasks)]
        begins = [0, *ends[:-1]]
        slices = [rows.slice(b, e - b) for b, e in zip(begins, ends, strict=True)]
        dataset = ray.data.from_arrow(slices)
    else:
        dataset = ray.data.from_items(list(rows), override_num_blocks=num_tasks)
    for table in _tables_of(dataset.map(function, num_cpus=num_cpus)):
        yield from table.to_pylist()


def _num_tasks(num_rows: int, *, cpus: float) -> int:
    """Several for each CPU, and of few rows each, so that results come soon; a bounded number."""
    wanted = max(MIN_TASKS, TASKS_PER_CPU * math.ceil(cpus), num_rows // ROWS_PER_TASK)
    return min(num_rows, wanted, MAX_TASKS)


def stream_through(
    tables: Sequence[pa.Table],
    stages: Sequence[ActorStage],
    *,
    block_bytes: int,
    patience_seconds: float,
) -> Iterator[pa.Table]:
    """Send tables through one pool of actors after the other, all of them at work at once.

    What is in flight is bounded by Ray Data's backpressure, so an actor may yield far more than it
    gets: it is asked for more as the next ones keep up. A table is what one call of the first
    actors gets. What they yield is packed, or split between rows, into blocks of about
    `block_bytes`; one such block is what a call of the next actors gets.

    An actor that dies is replaced, and what it was doing is done again, so that rows may come
    twice. They come in no particular order.

    Raises:
        ResourceError: Ray gave up, or nothing moved for `patience_seconds`: what a lost machine
            was doing waits for its own actors, and these for CPUs or GPUs that nobody has. Some
            rows have not come.
    """
    if not tables:
        return
    _configure(preserve_order=False, block_bytes=block_bytes, patience_seconds=patience_seconds)
    dataset: Dataset = ray.data.from_arrow(list(tables))
    for stage in stages:
        dataset = dataset.map_batches(
            stage.actor,
            fn_constructor_kwargs=stage.arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=stage.min_actors, max_size=stage.max_actors),
            num_cpus=stage.num_cpus,
            num_gpus=stage.num_gpus,
        )
    try:
        yield from _tables_of(dataset)
    except ExecutionTimeoutError as error:
        raise ResourceError(f"nothing moved for {patience_seconds:g} seconds") from error
    except ray.exceptions.RayError as error:
        if _is_own_mistake(error):
            raise  # the same would happen again
        raise ResourceError(f"Ray lost what it was working on: {error}") from error


def _is_own_mistake(error: ray.exceptions.RayError) -> bool:
    """Whether an actor's code failed, and not Ray in bringing it what it works on."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        is_rays = isinstance(cause, ray.exceptions.RayError)
        return not is_rays or isinstance(cause, ray.exceptions.UserCodeException)
    return isinstance(error, ray.exceptions.UserCodeException)


def _tables_of(dataset: Dataset) -> Iterator[pa.Table]:
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        assert isinstance(batch, pa.Table)
        yield batch


def _configure(*, preserve_order: bool, block_bytes: int, patience_seconds: float) -> None:
    """Our own progress bars count what users think in: videos, not blocks."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = preserve_order
    context.target_max_block_size = block_bytes
    context.execution_no_progress_timeout_s = patience_seconds
    logging.getLogger("ray.data").setLevel(logging.WARNING)
