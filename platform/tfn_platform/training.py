"""The one training loop. A family gives it a model, batches and a loss, and gets the best weights.

It is resumable to the bit: everything random in an epoch is seeded from (seed, epoch), and the
state is saved at the end of each epoch, so that a training that was killed ends with the weights
that it would have had undisturbed.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import nn

from tfn_platform.checkpoint import load_torch, save_torch
from tfn_platform.errors import StageError
from tfn_platform.spec import Spec
from tfn_platform.store import StageFolder

Batch = TypeVar("Batch")


class TrainingSettings(Spec):
    """How a model is optimised (AdamW)."""

    learning_rate: float = Field(4e-4, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(1e-5, ge=0)
    """Decoupled weight decay."""
    num_epochs: int = Field(9, ge=0)
    """Passes over the training videos; 0 leaves the model as initialised."""
    batch_size: int = Field(16, ge=1)
    """Videos (or clips) a step."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """What follows the warm-up: cosine to 0, ×0.1 after 7 ninths of the steps, or nothing."""
    gradient_clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    num_threads: int = Field(1, ge=1)
    """CPU threads of torch in the process that trains; results depend on their number."""


@dataclass(frozen=True)
class LossReport:
    """The loss to minimise (a scalar tensor) and the numbers to show."""

    total: torch.Tensor
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochReport:
    """The figures of one epoch, averaged over its batches."""

    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingTask(Generic[Batch]):
    """What a family brings to the loop.

    Attributes:
        training_batches: epoch -> its batches, the same ones whenever asked for the same epoch.
        num_batches: batches an epoch.
        validation_batches: the batches that the best epoch is chosen on; may be empty.
        compute_loss: (model, batch, generator) -> loss; the generator comes from seed and epoch.
    """

    training_batches: Callable[[int], Iterable[Batch]]
    num_batches: int
    validation_batches: Callable[[], Iterable[Batch]]
    compute_loss: Callable[[nn.Module, Batch, torch.Generator], LossReport]


def set_determinism(*, seed: int, num_threads: int) -> None:
    """Seed torch and fix everything that may change a result from run to run."""
    torch.manual_seed(seed)
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Otherwise every new tensor is filled first, which costs time and shows only what reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def train(
    model: nn.Module,
    task: TrainingTask[Batch],
    *,
    settings: TrainingSettings,
    seed: int,
    folder: StageFolder,
    on_epoch: Callable[[EpochReport], None],
    writes: bool = True,
) -> list[EpochReport]:
    """Train `model` in place and leave it with the best epoch's weights (lowest validation loss).

    The state is kept in `folder` after each epoch, and an earlier state found there is continued.

    Args:
        model: on its device; may be wrapped for data-parallel training.
        task: batches and loss.
        settings: of the optimiser.
        seed: decides everything random in here.
        folder: where the state, the best weights and the history go.
        on_epoch: called after each epoch, also (at once) for those that an earlier process trained.
        writes: False in all but one of the workers of a data-parallel training.

    Raises:
        StageError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    progress = _Progress.load(folder, model, optimizer)
    for report in progress.history:
        on_epoch(report)
    if settings.num_epochs == 0 and writes:
        save_torch(folder.store, folder.weights, unwrap(model).state_dict())
    for epoch in range(len(progress.history), settings.num_epochs):
        torch.manual_seed(_epoch_seed(seed, epoch))
        metrics = _train_epoch(model, task, optimizer, settings=settings, seed=seed, epoch=epoch)
        metrics |= _validate(model, task, seed=seed)
        progress.history.append(EpochReport(epoch, metrics))
        if writes:
            progress.save(folder, model, optimizer)
        else:
            progress.note_best(model)
        on_epoch(progress.history[-1])
    if progress.best_weights is not None:
        unwrap(model).load_state_dict(progress.best_weights)
    return progress.history


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a data-parallel wrapper."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, nn.Module)
    return inner


def best_epoch(history: list[EpochReport]) -> EpochReport | None:
    """The epoch whose weights are kept: lowest validation loss, without validation the last."""
    if not history:
        return None
    if "validation_loss" not in history[-1].metrics:
        return history[-1]
    return min(history, key=lambda report: report.metrics["validation_loss"])


@dataclass
class _Progress:
    history: list[EpochReport] = field(default_factory=list)
    best_weights: dict[str, torch.Tensor] | None = None

    @classmethod
    def load(
        cls, folder: StageFolder, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> "_Progress":
        if not folder.store.exists(folder.training_state):
            return cls()
        state = load_torch(folder.store, folder.training_state)
        unwrap(model).load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history = [EpochReport(entry["epoch"], entry["metrics"]) for entry in state["history"]]
        return cls(history, state["best_weights"])

    def note_best(self, model: nn.Module) -> bool:
        is_best = best_epoch(self.history) is self.history[-1]
        if is_best:
            self.best_weights = copy.deepcopy(unwrap(model).state_dict())
        return is_best

    def save(self, folder: StageFolder, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if self.note_best(model):
            assert self.best_weights is not None
            save_torch(folder.store, folder.weights, self.best_weights)
        history: list[dict[str, Any]] = [
            {"epoch": report.epoch, "metrics": report.metrics} for report in self.history
        ]
        folder.store.write_json(folder.history, history)
        state = {
            "model": unwrap(model).state_dict(),
            "optimizer": optimizer.state_dict(),
            "best_weights": self.best_weights,
            "history": history,
        }
        save_torch(folder.store, folder.training_state, state)


def _train_epoch(
    model: nn.Module,
    task: TrainingTask[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    settings: TrainingSettings,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    model.train()
    generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
    mean = _RunningMean()
    total_steps = settings.num_epochs * task.num_batches
    learning_rate = 0.0
    for position, batch in enumerate(task.training_batches(epoch)):
        step = epoch * task.num_batches + position
        learning_rate = settings.learning_rate * learning_rate_factor(settings, step, total_steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss = task.compute_loss(model, batch, generator)
        figures = _finite_figures(
            loss,
            where=f"training loss in epoch {epoch}, batch {position}",
            hint=f"a lower learning_rate than {settings.learning_rate:g} may help",
        )
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip_norm)
        optimizer.step()
        mean.add(figures)
    return mean.value("training_") | {"learning_rate": learning_rate}


@torch.no_grad()
def _validate(model: nn.Module, task: TrainingTask[Batch], *, seed: int) -> dict[str, float]:
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    mean = _RunningMean()
    for batch in task.validation_batches():
        loss = task.compute_loss(model, batch, generator)
        hint = "a lower learning_rate may help"
        mean.add(_finite_figures(loss, where="validation loss", hint=hint))
    return mean.value("validation_")


def _finite_figures(loss: LossReport, *, where: str, hint: str) -> dict[str, float]:
    """The numbers of a loss; a NaN among them would make the choice of the best epoch arbitrary."""
    figures = {"loss": loss.total.item(), **loss.parts}
    bad = ", ".join(
        f"{name} {value}" for name, value in figures.items() if not math.isfinite(value)
    )
    if bad:
        raise StageError(f"{where} must be finite, got {bad}; {hint}")
    return figures


def learning_rate_factor(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """The share of the peak learning rate at a step (0-based) of `total_steps`."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "step":
        return 0.1 if 9 * step >= 7 * total_steps else 1.0
    done = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch + 1) % (2**63)


class _RunningMean:
    """Mean of each of several numbers over batches."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def value(self, prefix: str) -> dict[str, float]:
        return {prefix + name: total / self._count for name, total in self._sums.items()}
