"""Train one Refine Network, and refine the evaluation videos' proposals (paper, 1.3 and 2.3)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
from tfn_jobs.member_specs import RefinerSpec
from tfn_jobs.proposal_tables import VideoProposals, proposal_rows
from tfn_jobs.reporting import OnEpoch
from tfn_models.refine.decode import decode_refined
from tfn_models.refine.loss import refine_loss
from tfn_models.refine.model import RefineConfig, build_refine
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import PROPOSALS
from tfn_platform.training import EpochReport, LossReport, TrainingTask, set_determinism, train


@dataclass(frozen=True)
class RefinerData:
    """Features and segments, and the proposals [N, 2] (seconds, best first) of each video."""

    videos: MemberData
    proposals: Mapping[str, VideoProposals]

    def of_subset(self, subset: str) -> list[int]:
        """Indices of the videos of one subset that have proposals."""
        videos = self.videos
        return [v for v in videos.of_subset(subset) if videos.videos[v].video_id in self.proposals]


@dataclass(frozen=True)
class RefineBatch:
    """Features [B, T, F], proposals [B, N, 2] in clips, each with a mask, and segments in clips."""

    features: torch.Tensor
    mask: torch.Tensor
    proposals: torch.Tensor
    proposal_mask: torch.Tensor
    segments: list[torch.Tensor]

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        sizes = {len(self.mask), len(self.proposals), len(self.proposal_mask), len(self.segments)}
        if self.features.shape[:2] != self.mask.shape or len(sizes) != 1:
            raise ValueError(f"got {self.features.shape}, {self.mask.shape}, {sizes} videos")


def train_refiner(
    spec: RefinerSpec, stage: Stage, data: RefinerData, folder: StageFolder, *, on_epoch: OnEpoch
) -> list[EpochReport]:
    """Train (or continue), then write the refined PROPOSALS of the evaluation subset.

    They keep the rank of the proposal that they come from; their score is the predicted IoU alone.
    """
    seed = member_seed(data.videos, stage.name)
    set_determinism(seed=seed, num_threads=spec.training.num_threads)
    device = assigned_device()
    config = refine_config(spec, data.videos.features.contract.feature_dim)
    model = build_refine(config).to(device)
    task = _task(spec, data, seed=seed, device=device)
    history = train(
        model, task, settings=spec.training, seed=seed, folder=folder, on_epoch=on_epoch
    )
    refined = _predict(model, spec, data, device=device)
    table = proposal_rows({spec.name: refined})
    write_table(folder, PROPOSALS, table, contract=stage.contract(PROPOSALS))
    return history


def refine_config(spec: RefinerSpec, feature_dim: int) -> RefineConfig:
    """The network that a spec asks for."""
    return RefineConfig(
        feature_dim=feature_dim,
        use_lstm=spec.use_lstm,
        use_nonlocal=spec.use_nonlocal,
        use_action_score=spec.use_action_score,
        use_transformer=spec.use_transformer,
        base_channels=spec.base_channels,
        roi_channels=spec.roi_channels,
        hidden_channels=spec.hidden_channels,
        start_bins=spec.context_bins,
        action_bins=spec.action_bins,
        end_bins=spec.context_bins,
    )


def _task(
    spec: RefinerSpec, data: RefinerData, *, seed: int, device: torch.device
) -> TrainingTask[RefineBatch]:
    training = data.of_subset(data.videos.training_subset)
    size = spec.training.batch_size

    def training_batches(epoch: int) -> Iterator[RefineBatch]:
        for indices in shuffled_batches(training, size, seed=seed, epoch=epoch):
            yield _batch(data, indices, device, limit=spec.num_training_proposals, spec=spec)

    def validation_batches() -> Iterator[RefineBatch]:
        for indices in batches(data.of_subset(data.videos.evaluation_subset), size):
            yield _batch(data, indices, device, limit=spec.num_training_proposals, spec=spec)

    def compute_loss(
        model: nn.Module, batch: RefineBatch, generator: torch.Generator
    ) -> LossReport:
        output = model(
            batch.features,
            mask=batch.mask,
            proposals=batch.proposals,
            proposal_mask=batch.proposal_mask,
        )
        loss = refine_loss(
            output,
            batch.segments,
            mask=batch.mask,
            proposal_mask=batch.proposal_mask,
            generator=generator,
        )
        parts = {"offsets": loss.offsets.item(), "iou": loss.iou.item()}
        return LossReport(loss.total, {**parts, "action": loss.action.item()})

    return TrainingTask(
        training_batches, num_batches(training, size), validation_batches, compute_loss
    )


def _batch(
    data: RefinerData,
    indices: list[int],
    device: torch.device,
    *,
    limit: int | None,
    spec: RefinerSpec,
) -> RefineBatch:
    videos = data.videos
    features, mask = pad_sequences([videos.feature_tensor(v) for v in indices])
    boxes = [data.proposals[videos.videos[v].video_id].segments[:limit] for v in indices]
    proposals, proposal_mask = pad_sequences([b.float() / videos.clip_seconds for b in boxes])
    segments = [
        videos.segments_inside(
            v, min_seconds=spec.min_segment_seconds, unit_seconds=videos.clip_seconds
        ).float()
        for v in indices
    ]
    return RefineBatch(
        features.to(device),
        mask.to(device),
        proposals.to(device),
        proposal_mask.to(device),
        segments,
    )


@torch.inference_mode()
def _predict(
    model: nn.Module, spec: RefinerSpec, data: RefinerData, *, device: torch.device
) -> dict[str, VideoProposals]:
    """The evaluation videos' proposals as the last stage leaves them, and their predicted IoU."""
    model.eval()
    refined: dict[str, VideoProposals] = {}
    videos = data.videos
    for indices in batches(data.of_subset(videos.evaluation_subset), spec.training.batch_size):
        batch = _batch(data, indices, device, limit=None, spec=spec)
        output = model(
            batch.features,
            mask=batch.mask,
            proposals=batch.proposals,
            proposal_mask=batch.proposal_mask,
        )
        ones = torch.ones_like(batch.proposal_mask, dtype=torch.float32)
        decoded = decode_refined(output, proposal_scores=ones, proposal_mask=batch.proposal_mask)
        for row, v in enumerate(indices):
            video = videos.videos[v]
            count = len(data.proposals[video.video_id].scores)
            seconds = decoded.segments[row, :count].double().cpu() * videos.clip_seconds
            refined[video.video_id] = VideoProposals(
                seconds.clamp(0, video.duration_seconds), decoded.scores[row, :count].double().cpu()
            )
    return refined
