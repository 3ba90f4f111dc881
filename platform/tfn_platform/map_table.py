"""Run a function, or a chain of actors, over rows with Ray Data; results come as they are made."""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
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
START_SECONDS = 60.0
"""Within which a stream has begun, on a busy machine."""
FREE_AGAIN_SECONDS = 60.0
"""Ray takes up to half of that to notice that a machine is gone."""
FREE_POLL_SECONDS = 0.2
LOST_PATIENCE_SECONDS = 60.0
"""How long nothing may come once a machine is lost: Ray has replaced its actors by then, or waits
for what it will never get."""
LOST_POLL_SECONDS = 5.0


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
        environment: variables of its process, besides those of the job.
    """

    actor: type
    arguments: dict[str, Any] = field(default_factory=dict)
    min_actors: int = 1
    max_actors: int = 1
    num_cpus: float = 1
    num_gpus: float = 0
    environment: dict[str, str] = field(default_factory=dict)


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
        dataset = ray.data.from_blocks(slices)
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
) -> Generator[pa.Table, None, None]:
    """Send tables through one pool of actors after the other, all of them at work at once.

    What is in flight is bounded by Ray Data's backpressure, so an actor may yield far more than it
    gets: it is asked for more as the next ones keep up. A table is what one call of the first
    actors gets. What they yield is packed, or split between rows, into blocks of about
    `block_bytes`; one such block is what a call of the next actors gets.

    An actor that dies is replaced, and what it was doing is done again, so that rows may come
    twice. They come in no particular order.

    However the stream ends, and be it that the caller closes it, its actors are killed, whatever
    they are at. After a ResourceError their CPUs and GPUs are free, or it says that they are not.

    Raises:
        ResourceError: Ray gave up, or nothing moved for `patience_seconds`, or for one minute
            after a machine was lost: what it was doing waits for its own actors, and these for
            CPUs or GPUs that nobody has. Some rows have not come.
    """
    if not tables:
        return
    free_before = ray.available_resources()  # type: ignore[no-untyped-call]
    # Where this process is: no machine that is lost takes the owner along but this one.
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    owner: Any = ray.remote(num_cpus=0, label_selector=here)(_StreamOwner).remote(
        list(tables),
        [_pickled(stage) for stage in stages],
        block_bytes=block_bytes,
        patience_seconds=patience_seconds,
    )
    try:
        yield from _tables_from(owner, patience_seconds=START_SECONDS + 2 * patience_seconds)
    except ResourceError as error:
        raise ResourceError(f"{error}{_wait_until_free(free_before)}") from error


def _tables_from(owner: Any, *, patience_seconds: float) -> Iterator[pa.Table]:
    """What the owner of a stream has, one table after the other; however that ends, kill it."""
    machines = _machines()
    try:
        while table := _next_table(owner, machines, patience_seconds=patience_seconds):
            yield table[0]
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ResourceError):
            raise ResourceError(str(error.cause)) from error
        raise  # an actor's own mistake: the same would happen again
    except ray.exceptions.RayError as error:
        raise ResourceError(f"Ray lost the stream: {error}") from error
    finally:
        if ray.is_initialized():
            ray.kill(owner)


def _next_table(owner: Any, machines: set[str], *, patience_seconds: float) -> list[pa.Table]:
    """The next table, none at the end; `machines` are those that the stream began with."""
    answer = owner.next_table.remote()
    asked = time.monotonic()
    lost_since: float | None = None
    while not ray.wait([answer], timeout=min(LOST_POLL_SECONDS, patience_seconds))[0]:
        now = time.monotonic()
        if lost_since is None and not machines <= _machines():
            lost_since = now
        if now - asked > patience_seconds:
            raise ResourceError(f"nothing came for {patience_seconds:g} seconds")
        if lost_since is not None and now - lost_since > LOST_PATIENCE_SECONDS:
            raise ResourceError(
                f"a machine was lost, and nothing came for {LOST_PATIENCE_SECONDS:g} seconds"
            )
    table: list[pa.Table] = ray.get(answer)
    return table


def _machines() -> set[str]:
    """The machines that Ray believes to be there."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


def _wait_until_free(free_before: dict[str, float]) -> str:
    """Wait until what was free is free again, or gone; what to say if it does not happen.

    A machine that was lost a moment ago still counts, as busy as it was, until Ray has noticed: who
    goes on before that plans with CPUs that are not there.
    """
    deadline = time.monotonic() + FREE_AGAIN_SECONDS
    while True:
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        totals = ray.cluster_resources()  # type: ignore[no-untyped-call]
        wanted = {
            name: min(free_before.get(name, 0.0), totals.get(name, 0.0)) for name in ("CPU", "GPU")
        }
        missing = {name: wanted[name] - free.get(name, 0.0) for name in wanted}
        taken = [f"{value:g} {name}" for name, value in missing.items() if value > 1e-3]
        if not taken:
            return ""
        if time.monotonic() > deadline:
            return (
                f"; {FREE_AGAIN_SECONDS:g} seconds later {' and '.join(taken)} of what was free "
                "before it are still taken: stop what else runs on the cluster, or wait for it"
            )
        time.sleep(FREE_POLL_SECONDS)


def _pickled(stage: ActorStage) -> ActorStage:
    """The same; but its code, which may be large, is imported only where its actors are."""
    stand_in = type(stage.actor.__name__, (_Unpickled,), {})
    pickled = cloudpickle.dumps(  # type: ignore[no-untyped-call]
        (stage.actor, stage.arguments)
    )
    return replace(stage, actor=stand_in, arguments={"pickled": pickled})


class _Unpickled:
    """Does what the actor of a stage does."""

    def __init__(self, pickled: bytes) -> None:
        actor, arguments = cloudpickle.loads(pickled)  # by `_pickled` above, never from a file
        self._actor = actor(**arguments)

    def __call__(self, table: pa.Table) -> Any:
        return self._actor(table)


class _StreamOwner:
    """An actor that runs a stream, and so owns its actors, its calls, and what these have made.

    Ray Data does not kill the actors of a stream that it gives up: it forgets them, and they go on
    until their calls are over. One that is in a long call keeps its CPU; one that waits for a CPU
    gets it before those of the next stream do; one that a lost object needs is begun anew. Ray
    itself takes all of that along, at once, when the process that owns it is killed.
    """

    def __init__(
        self,
        tables: list[pa.Table],
        stages: list[ActorStage],
        *,
        block_bytes: int,
        patience_seconds: float,
    ) -> None:
        _configure(preserve_order=False, block_bytes=block_bytes, patience_seconds=patience_seconds)
        # from_arrow would start a task for each of them, only to learn its schema.
        dataset: Dataset = ray.data.from_blocks(tables)
        for stage in stages:
            dataset = dataset.map_batches(
                stage.actor,
                fn_constructor_kwargs=stage.arguments,
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(min_size=stage.min_actors, max_size=stage.max_actors),
                num_cpus=stage.num_cpus,
                num_gpus=stage.num_gpus,
                runtime_env={"env_vars": stage.environment},
            )
        self._tables = _tables_of(dataset)
        self._patience_seconds = patience_seconds

    def next_table(self) -> list[pa.Table]:
        """The next one that is ready, none at the end."""
        try:
            return [table] if (table := next(self._tables, None)) is not None else []
        except ExecutionTimeoutError as error:
            raise ResourceError(f"nothing moved for {self._patience_seconds:g} seconds") from error
        except ray.exceptions.RayError as error:
            if _is_own_mistake(error):
                raise
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
