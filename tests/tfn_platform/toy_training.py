"""A small training for the tests of the loop, which can be killed where they want."""

from collections.abc import Iterator

import torch
from torch import nn

from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.training import EpochReport, LossReport, TrainingSettings, TrainingTask, train

SETTINGS = TrainingSettings(learning_rate=0.05, num_epochs=5, warmup_steps=3)
NUM_BATCHES = 4
STAGE = Stage("member", {})


class Killed(BaseException):
    """Stands for the end of the process: nothing of the program catches it."""


def make_model() -> nn.Module:
    """Dropout and batch statistics: randomness and state that must survive a restart."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
    )


def batches(seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(NUM_BATCHES):
        yield torch.randn(8, 6, generator=generator)


def compute_loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> LossReport:
    noise = torch.randn(len(batch), generator=generator)
    target = batch.sum(1) + 0.1 * noise
    error = (model(batch).squeeze(1) - target).square().mean()
    return LossReport(error, {"absolute": error.sqrt().item()})


def make_task(num_validation: int = 1) -> TrainingTask[torch.Tensor]:
    def validation() -> Iterator[torch.Tensor]:
        for seed in range(num_validation):
            yield from batches(1000 + seed)

    return TrainingTask(batches, NUM_BATCHES, validation, compute_loss)


def run(
    store: Store,
    *,
    task: TrainingTask[torch.Tensor] | None = None,
    settings: TrainingSettings = SETTINGS,
    seed: int = 0,
    kill_after: int | None = None,
    seen: list[EpochReport] | None = None,
    writes: bool = True,
) -> tuple[list[EpochReport], dict[str, torch.Tensor]]:
    """One process: trains from what lies in the store, as far as it lives."""
    model = make_model()

    def on_epoch(report: EpochReport) -> None:
        if seen is not None:
            seen.append(report)
        if report.epoch == kill_after:
            raise Killed

    history = train(
        model,
        task or make_task(),
        settings=settings,
        seed=seed,
        folder=STAGE.folder(store),
        on_epoch=on_epoch,
        writes=writes,
    )
    return history, model.state_dict()
