"""Run a function, or a model in an actor, over rows with Ray Data; results come one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

Row = dict[str, Any]


@dataclass(frozen=True)
class ModelStage:
    """A class whose instances live in actors and turn a batch of rows into a batch of rows.

    Attributes:
        actor: the class; called with a batch in Arrow format, gives one back.
        arguments: for its constructor.
        num_actors: how many.
        rows_per_call: rows a batch.
        num_cpus: logical CPUs of an actor.
        num_gpus: GPUs of an actor.
    """

    actor: type
    arguments: dict[str, Any] = field(default_factory=dict)
    num_actors: int = 1
    rows_per_call: int = 4
    num_cpus: float = 1
    num_gpus: float = 0


def map_rows(
    rows: Sequence[Row], function: Callable[[Row], Row], *, num_cpus: float = 1, num_tasks: int = 64
) -> Iterator[Row]:
    """Apply `function` to each row in parallel; results come in the order of the rows."""
    if not rows:
        return
    _configure(preserve_order=True)
    dataset = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), num_tasks))
    yield from _rows_of(dataset.map(function, num_cpus=num_cpus))


def map_through_model(
    rows: Sequence[Row],
    expand: Callable[[Row], Iterator[Row]],
    model: ModelStage,
    *,
    num_cpus: float = 1,
) -> Iterator[Row]:
    """Expand each row into several on CPU tasks, then send them through a pool of model actors.

    Results come in no particular order. What is in flight is bounded by Ray Data's backpressure, so
    `expand` may yield large rows: it is asked for the next ones as the actors keep up.
    """
    if not rows:
        return
    _configure(preserve_order=False)
    # One input row a block, so that whichever task is free takes the next one.
    dataset = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    expanded = dataset.flat_map(expand, num_cpus=num_cpus)
    results = expanded.map_batches(
        model.actor,
        fn_constructor_kwargs=model.arguments,
        batch_size=model.rows_per_call,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=model.num_actors),
        num_cpus=model.num_cpus,
        num_gpus=model.num_gpus,
    )
    yield from _rows_of(results)


def _rows_of(dataset: Dataset) -> Iterator[Row]:
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        assert isinstance(batch, pa.Table)
        yield from batch.to_pylist()


def _configure(*, preserve_order: bool) -> None:
    """Our own progress bars count what users think in: videos, not blocks."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = preserve_order
