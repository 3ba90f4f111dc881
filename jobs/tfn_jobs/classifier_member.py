"""Train one video classifier and score the evaluation videos (paper, section 2.1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import nn

from tfn_jobs.member_data import (
    MemberData,
    assigned_device,
    batches,
    member_seed,
    num_batches,
    pad_sequences,
    shuffled_batches,
)
from tfn_jobs.member_specs import ClassifierSpec
from tfn_jobs.reporting import OnEpoch
from tfn_models.classifier.loss import classifier_loss
from tfn_models.classifier.model import ClassifierConfig, build_classifier
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import CLASS_SCORES
from tfn_platform.training import EpochReport, LossReport, TrainingTask, set_determinism, train


@dataclass(frozen=True)
class ClassifierBatch:
    """Features [B, T, F], mask [B, T] and the main class [B] of videos."""

    features: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        if self.features.shape[:2] != self.mask.shape or len(self.labels) != len(self.mask):
            raise ValueError(f"got {self.features.shape}, {self.mask.shape}, {self.labels.shape}")


def train_classifier(
    spec: ClassifierSpec, stage: Stage, data: MemberData, folder: StageFolder, *, on_epoch: OnEpoch
) -> list[EpochReport]:
    """Train (or continue), then write CLASS_SCORES of the evaluation subset."""
    seed = member_seed(data, stage.name)
    set_determinism(seed=seed, num_threads=spec.training.num_threads)
    device = assigned_device()
    model = build_classifier(classifier_config(spec, data)).to(device)
    task = _task(spec, data, seed=seed, device=device)
    history = train(
        model, task, settings=spec.training, seed=seed, folder=folder, on_epoch=on_epoch
    )
    evaluated = data.of_subset(data.evaluation_subset)
    logits = _predict(model, data, evaluated, batch_size=spec.training.batch_size, device=device)
    rows = {
        "video_id": [data.videos[v].video_id for v in evaluated],
        "member": [spec.name] * len(evaluated),
        "logits": pa.FixedSizeListArray.from_arrays(
            pa.array(logits.flatten().numpy()), len(data.class_names)
        ),
    }
    table = pa.table(rows, schema=CLASS_SCORES.sized(len(data.class_names)))
    write_table(folder, CLASS_SCORES, table, contract=stage.contract(CLASS_SCORES))
    return history


def classifier_config(spec: ClassifierSpec, data: MemberData) -> ClassifierConfig:
    """The network that a spec asks for."""
    return ClassifierConfig(
        num_classes=len(data.class_names),
        feature_dim=data.features.contract.feature_dim,
        pooling=spec.pooling,
        transformer_channels=spec.transformer_channels,
        transformer_layers=spec.transformer_layers,
        transformer_heads=spec.transformer_heads,
        local_heads=spec.transformer_heads // 2,
        hidden_channels=spec.hidden_channels,
        dropout=spec.dropout,
    )


def _task(
    spec: ClassifierSpec, data: MemberData, *, seed: int, device: torch.device
) -> TrainingTask[ClassifierBatch]:
    training = data.of_subset(data.training_subset)
    size = spec.training.batch_size

    def training_batches(epoch: int) -> Iterator[ClassifierBatch]:
        for indices in shuffled_batches(training, size, seed=seed, epoch=epoch):
            yield _batch(data, indices, device)

    def validation_batches() -> Iterator[ClassifierBatch]:
        for indices in batches(data.of_subset(data.evaluation_subset), size):
            yield _batch(data, indices, device)

    def compute_loss(
        model: nn.Module, batch: ClassifierBatch, generator: torch.Generator
    ) -> LossReport:
        logits = model(batch.features, batch.mask)
        loss = classifier_loss(
            logits,
            batch.labels,
            nuclear_norm_weight=spec.nuclear_norm_weight if model.training else 0.0,
            label_smoothing=spec.label_smoothing if model.training else 0.0,
        )
        accuracy = (logits.argmax(1) == batch.labels).float().mean().item()
        return LossReport(loss.total, {"accuracy": accuracy})

    return TrainingTask(
        training_batches, num_batches(training, size), validation_batches, compute_loss
    )


def _batch(data: MemberData, indices: list[int], device: torch.device) -> ClassifierBatch:
    features, mask = pad_sequences([data.feature_tensor(v) for v in indices])
    labels = torch.tensor([data.videos[v].main_label for v in indices])
    return ClassifierBatch(features.to(device), mask.to(device), labels.to(device))


@torch.inference_mode()
def _predict(
    model: nn.Module,
    data: MemberData,
    indices: list[int],
    *,
    batch_size: int,
    device: torch.device,
) -> torch.Tensor:
    """Logits [V, K] of some videos."""
    model.eval()
    logits = [torch.empty(0, len(data.class_names))]
    for chosen in batches(indices, batch_size):
        batch = _batch(data, chosen, device)
        logits.append(model(batch.features, batch.mask).float().cpu())
    return torch.cat(logits)
