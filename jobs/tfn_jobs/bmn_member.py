"""Train one Boundary-Matching Network and write its maps of all videos (paper, 1.2 and 2.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from tfn_jobs.boundary_map_tables import VIDEOS_PER_PART, boundary_map_rows
from tfn_jobs.member_data import (
    MemberData,
    assigned_device,
    batches,
    member_seed,
    num_batches,
    segments_in_extent,
    shuffled_batches,
)
from tfn_jobs.member_specs import BmnSpec
from tfn_jobs.reporting import OnEpoch
from tfn_models.bmn.loss import bmn_loss
from tfn_models.bmn.model import BmnConfig, build_bmn
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BmnTargets, BoundaryMaps
from tfn_models.layers.resize import resize_sequence
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import BOUNDARY_MAPS
from tfn_platform.training import EpochReport, LossReport, TrainingTask, set_determinism, train


@dataclass(frozen=True)
class BmnBatch:
    """Features [B, D, F] resized to the bins, and what the maps should be."""

    features: torch.Tensor
    targets: BmnTargets

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        if self.features.shape[:2] != self.targets.start.shape:
            raise ValueError(f"got {self.features.shape} and targets {self.targets.start.shape}")


def train_bmn(
    spec: BmnSpec, stage: Stage, data: MemberData, folder: StageFolder, *, on_epoch: OnEpoch
) -> list[EpochReport]:
    """Train (or continue), then write BOUNDARY_MAPS of all videos, for refiners train on them."""
    seed = member_seed(data, stage.name)
    set_determinism(seed=seed, num_threads=spec.training.num_threads)
    device = assigned_device()
    model = build_bmn(bmn_config(spec, data)).to(device)
    task = _task(spec, data, seed=seed, device=device)
    history = train(
        model, task, settings=spec.training, seed=seed, folder=folder, on_epoch=on_epoch
    )
    everything = list(range(len(data.videos)))
    for part, indices in enumerate(batches(everything, VIDEOS_PER_PART)):
        maps = _predict(model, spec, data, indices, device=device)
        write_table(
            folder,
            BOUNDARY_MAPS,
            boundary_map_rows(spec.name, [data.videos[v].video_id for v in indices], maps),
            contract=stage.contract(BOUNDARY_MAPS),
            part=part,
        )
    return history


def bmn_config(spec: BmnSpec, data: MemberData) -> BmnConfig:
    """The network that a spec asks for."""
    return BmnConfig(
        feature_dim=data.features.contract.feature_dim,
        num_bins=spec.num_bins,
        num_lstm_layers=spec.num_lstm_layers,
        base_channels=spec.base_channels,
        map_channels=(spec.sequence_channels, spec.map_channels, spec.conv_channels),
        num_samples=spec.num_samples,
    )


def _task(
    spec: BmnSpec, data: MemberData, *, seed: int, device: torch.device
) -> TrainingTask[BmnBatch]:
    training = data.of_subset(data.training_subset)
    size = spec.training.batch_size

    def training_batches(epoch: int) -> Iterator[BmnBatch]:
        for indices in shuffled_batches(training, size, seed=seed, epoch=epoch):
            yield _batch(spec, data, indices, device)

    def validation_batches() -> Iterator[BmnBatch]:
        for indices in batches(data.of_subset(data.evaluation_subset), size):
            yield _batch(spec, data, indices, device)

    def compute_loss(model: nn.Module, batch: BmnBatch, generator: torch.Generator) -> LossReport:
        loss = bmn_loss(model(batch.features), batch.targets, generator=generator)
        parts = {
            "boundary": loss.boundary.item(),
            "regression": loss.regression.item(),
            "classification": loss.classification.item(),
        }
        return LossReport(loss.total, parts)

    return TrainingTask(
        training_batches, num_batches(training, size), validation_batches, compute_loss
    )


def _batch(spec: BmnSpec, data: MemberData, indices: list[int], device: torch.device) -> BmnBatch:
    segments = [segments_in_extent(data, v, min_seconds=spec.min_segment_seconds) for v in indices]
    targets = bmn_targets(segments, num_bins=spec.num_bins)
    return BmnBatch(_resized(spec, data, indices).to(device), targets.to(device))


def _resized(spec: BmnSpec, data: MemberData, indices: list[int]) -> torch.Tensor:
    return torch.stack([resize_sequence(data.feature_tensor(v), spec.num_bins) for v in indices])


@torch.inference_mode()
def _predict(
    model: nn.Module, spec: BmnSpec, data: MemberData, indices: list[int], *, device: torch.device
) -> list[BoundaryMaps]:
    """The maps of some videos, a batch each."""
    model.eval()
    return [
        model(_resized(spec, data, chosen).to(device))
        for chosen in batches(indices, spec.training.batch_size)
    ]
