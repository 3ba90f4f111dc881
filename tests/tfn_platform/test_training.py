"""The training loop: killed anywhere, it ends with the weights of an undisturbed run."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tfn_platform.toy_training import (
    NUM_BATCHES,
    SETTINGS,
    STAGE,
    Killed,
    batches,
    compute_loss,
    make_model,
    make_task,
    run,
)
from tfn_platform.checkpoint import load_torch, weights_hash
from tfn_platform.errors import StageError
from tfn_platform.store import Store
from tfn_platform.training import (
    EpochReport,
    LossReport,
    TrainingSettings,
    TrainingTask,
    best_epoch,
    learning_rate_factor,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def undisturbed(tmp_path: Path) -> tuple[list[EpochReport], dict[str, torch.Tensor]]:
    return run(Store.open(str(tmp_path / "undisturbed")))


Result = tuple[list[EpochReport], dict[str, torch.Tensor]]


def test_equal_seeds_give_equal_weights_and_others_do_not(
    tmp_path: Path, undisturbed: Result
) -> None:
    again = run(Store.open(str(tmp_path / "again")))
    other = run(Store.open(str(tmp_path / "other")), seed=1)
    assert again[0] == undisturbed[0]
    assert weights_hash(again[1]) == weights_hash(undisturbed[1])
    assert weights_hash(other[1]) != weights_hash(undisturbed[1])


@pytest.mark.parametrize("epoch", range(5))
def test_killed_after_an_epoch_and_continued_is_the_same_to_the_bit(
    store: Store, undisturbed: Result, epoch: int
) -> None:
    with pytest.raises(Killed):
        run(store, kill_after=epoch)
    torch.rand(7)  # The next process has another random state.
    seen: list[EpochReport] = []
    history, weights = run(store, seen=seen)
    assert history == undisturbed[0]
    assert seen == history
    assert weights_hash(weights) == weights_hash(undisturbed[1])
    kept = load_torch(store, STAGE.folder(store).weights)
    assert weights_hash(kept) == weights_hash(weights)


@pytest.mark.parametrize("step", range(NUM_BATCHES + 1))
def test_killed_inside_an_epoch_and_continued_is_the_same_to_the_bit(
    store: Store, undisturbed: Result, step: int
) -> None:
    """The step beyond the last is in the validation."""
    calls = 0

    def dying_loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
        nonlocal calls
        if calls == 2 * (2 * NUM_BATCHES) + step:  # In the third epoch; each also validates.
            raise Killed
        calls += 1
        return compute_loss(model, batch, generator)

    task = make_task()
    dying = TrainingTask(task.training_batches, NUM_BATCHES, task.validation_batches, dying_loss)
    with pytest.raises(Killed):
        run(store, task=dying)
    history, weights = run(store)
    assert history == undisturbed[0]
    assert weights_hash(weights) == weights_hash(undisturbed[1])


@pytest.mark.parametrize("file", ["weights.pt", "history.json", "training_state.pt"])
def test_killed_between_the_files_of_an_epoch(
    store: Store, undisturbed: Result, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Whatever has been written before, the epoch counts once the state is there."""
    write = Store.write_bytes

    def die(self: Store, relative: str, data: bytes) -> None:
        if relative.endswith(file):
            raise Killed
        write(self, relative, data)

    with pytest.raises(Killed):
        run(store, kill_after=1)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", die)
        with pytest.raises(Killed):
            run(store)
    history, weights = run(store)
    assert history == undisturbed[0]
    assert weights_hash(weights) == weights_hash(undisturbed[1])


def task_with_validation_losses(losses: list[float]) -> TrainingTask[torch.Tensor]:
    """Trains as usual; the validation loss of epoch k is losses[k] whatever the weights are."""
    epochs: list[int] = []

    def training(epoch: int) -> Iterator[torch.Tensor]:
        epochs.append(epoch)
        return batches(epoch)

    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
        if model.training:
            return compute_loss(model, batch, generator)
        return LossReport(torch.tensor(losses[epochs[-1]]))

    return TrainingTask(training, NUM_BATCHES, lambda: [torch.zeros(1, 6)], loss)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([5.0, 1.0, 3.0, 2.0, 4.0], 1),
        ([1.0, 2, 3, 4, 5], 0),
        ([5.0, 4, 3, 2, 1], 4),
        ([1.0] * 5, 0),
    ],
)
@pytest.mark.parametrize("kill_after", [None, 0, 2, 3])
def test_the_best_epoch_is_kept_also_across_restarts(
    store: Store, tmp_path: Path, losses: list[float], best: int, kill_after: int | None
) -> None:
    task = task_with_validation_losses(losses)
    if kill_after is not None:
        with pytest.raises(Killed):
            run(store, task=task, kill_after=kill_after)
    history, weights = run(store, task=task)
    reported = best_epoch(history)
    assert reported is not None
    assert reported.epoch == best
    until_best = Store.open(str(tmp_path / "until best"))
    with pytest.raises(Killed):
        run(until_best, task=task, kill_after=best)
    state = load_torch(until_best, STAGE.folder(until_best).training_state)
    assert weights_hash(weights) == weights_hash(state["model"])
    kept = load_torch(store, STAGE.folder(store).weights)
    assert weights_hash(kept) == weights_hash(weights)


def test_without_validation_the_last_epoch_is_kept(store: Store) -> None:
    history, weights = run(store, task=make_task(num_validation=0))
    assert "validation_loss" not in history[0].metrics
    assert best_epoch(history) is history[-1]
    state = load_torch(store, STAGE.folder(store).training_state)
    assert weights_hash(state["model"]) == weights_hash(weights)
    assert best_epoch([]) is None


def test_zero_epochs_keep_the_initial_weights(store: Store) -> None:
    history, weights = run(store, settings=TrainingSettings(num_epochs=0))
    assert history == []
    initial = weights_hash(make_model().state_dict())
    assert weights_hash(weights) == initial
    assert weights_hash(load_torch(store, STAGE.folder(store).weights)) == initial


def test_the_history_is_written_and_averages_the_batches(store: Store) -> None:
    history, _ = run(store)
    stored = store.read_json(STAGE.folder(store).history)
    assert [EpochReport(entry["epoch"], entry["metrics"]) for entry in stored] == history
    assert [report.epoch for report in history] == list(range(5))
    assert history[-1].metrics["training_loss"] < history[0].metrics["training_loss"]
    losses = iter([1.0, 2.0, 6.0, 7.0, 10.0, 30.0])

    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
        value = next(losses)
        weight = next(model.parameters()).sum() * 0
        return LossReport(weight + value, {"double": 2 * value})

    task = TrainingTask(batches, NUM_BATCHES, lambda: [torch.zeros(1)] * 2, loss)
    other = Store.open(f"{store.root}2")
    settings = TrainingSettings(num_epochs=1, schedule="constant", learning_rate=0.5)
    (report,), _ = run(other, task=task, settings=settings)
    assert report.metrics == {
        "training_loss": 4.0,
        "training_double": 8.0,
        "validation_loss": 20.0,
        "validation_double": 40.0,
        "learning_rate": 0.5,
    }


def test_a_worker_that_does_not_write_ends_with_the_same_weights(
    store: Store, undisturbed: Result
) -> None:
    history, weights = run(store, writes=False)
    assert history == undisturbed[0]
    assert weights_hash(weights) == weights_hash(undisturbed[1])
    assert not store.exists(STAGE.folder(store).relative)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_training_loss_that_is_not_finite_ends_the_training(store: Store, value: float) -> None:
    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
        total = compute_loss(model, batch, generator).total
        return LossReport(total * value if generator.initial_seed() == 3 else total)

    task = TrainingTask(batches, NUM_BATCHES, make_task().validation_batches, loss)
    with pytest.raises(StageError, match=r"training loss in epoch 2, batch 0 .*0\.05") as caught:
        run(store, task=task)
    assert f"got loss {value}" in str(caught.value)
    assert len(store.read_json(STAGE.folder(store).history)) == 2


@pytest.mark.parametrize("part", [{}, {"error": math.nan}])
def test_a_validation_that_is_not_finite_ends_the_training(
    store: Store, part: dict[str, float]
) -> None:
    """A NaN in the first epoch was the "best" loss for ever, had JSON not refused it."""

    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
        if model.training:
            return compute_loss(model, batch, generator)
        return LossReport(torch.tensor(1.0 if part else math.nan), part)

    task = TrainingTask(batches, NUM_BATCHES, make_task().validation_batches, loss)
    with pytest.raises(StageError, match="validation loss must be finite, got .* nan"):
        run(store, task=task)


def factors(total: int, **settings: object) -> list[float]:
    spec = TrainingSettings.model_validate(settings)
    return [learning_rate_factor(spec, step, total) for step in range(total)]


def test_learning_rate_schedules_by_hand() -> None:
    assert factors(3, schedule="constant") == [1, 1, 1]
    assert factors(4, schedule="constant", warmup_steps=2) == [0.5, 1, 1, 1]
    assert factors(9, schedule="step") == [1] * 7 + [0.1] * 2
    assert factors(9, schedule="step", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 0.1, 0.1]
    assert factors(10, schedule="step") == [1] * 8 + [0.1] * 2
    half = math.sqrt(0.5)
    cosine = [1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert factors(4, schedule="cosine") == pytest.approx(cosine)
    assert factors(6, schedule="cosine", warmup_steps=2) == pytest.approx([0.5, 1, *cosine])
    assert factors(2, schedule="cosine", warmup_steps=4) == [0.25, 0.5]


def test_the_optimizer_follows_the_schedule(store: Store) -> None:
    history, _ = run(store)
    last_steps = [4 * epoch + 3 for epoch in range(5)]
    expected = [0.05 * learning_rate_factor(SETTINGS, step, 20) for step in last_steps]
    assert [report.metrics["learning_rate"] for report in history] == expected
