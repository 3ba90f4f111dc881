"""Job: fine-tune the backbone on clips inside annotated segments, with Ray Train (paper, 1.1)."""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import ray.train
import ray.train.torch
import torch
from torch import nn

from tfn_jobs.backbones import effective_config, write_network_config
from tfn_jobs.console import progress_bar
from tfn_jobs.initial_weights import initial_backbone
from tfn_jobs.labelled_videos import LabelledVideos, read_labelled_videos
from tfn_jobs.pipeline_spec import BackboneSpec, ClipsSpec, FinetuneSpec, PipelineSpec
from tfn_jobs.reporting import OnEpoch
from tfn_jobs.training_clips import (
    ClipBatch,
    ClipGeometry,
    SegmentVisit,
    draw_epoch,
    read_batches,
    spread_evenly,
)
from tfn_models.backbones.augment import AugmentConfig, augment_frames
from tfn_models.backbones.crops import RandomCropConfig
from tfn_models.backbones.frames import normalize_frames
from tfn_models.backbones.interface import Backbone, BackboneConfig
from tfn_models.classifier.loss import classifier_loss
from tfn_platform.checkpoint import load_torch, save_torch, weights_hash
from tfn_platform.cluster import require_resources
from tfn_platform.errors import StageError
from tfn_platform.history import following, read_history
from tfn_platform.store import StageFolder
from tfn_platform.training import (
    EpochReport,
    LossReport,
    TrainingTask,
    best_epoch,
    set_determinism,
    train,
)

MAX_FAILURES = 2


@dataclass(frozen=True)
class FinetuneJob:
    """All that a worker needs, cheap to send to it."""

    spec: PipelineSpec
    prepared: StageFolder
    folder: StageFolder
    checkpoint_hash: str | None = None
    """What the content of the spec's checkpoint must still be; None for any."""


def finetune(job: FinetuneJob, *, on_epoch: OnEpoch) -> dict[str, float | str]:
    """Make the backbone's weights: fine-tuned, or the given checkpoint as it is.

    Returns:
        Figures for the commit: hash of the weights, and the metrics of the best epoch.
    """
    settings = job.spec.backbone.finetune
    if settings is None:
        # A checkpoint may come without the projection, which is then drawn.
        torch.manual_seed(job.spec.seed)
        model = initial_backbone(
            job.spec.backbone, num_classes=None, content_hash=job.checkpoint_hash
        )
        write_network_config(job.folder, _effective(job.spec.backbone, model))
        save_torch(job.folder.store, job.folder.weights, model.state_dict())
        return {"weights_hash": weights_hash(model.state_dict())}
    total = settings.training.num_epochs
    with progress_bar(total, what="finetune", unit="epoch") as bar:

        def advance(report: EpochReport) -> None:
            bar.update()
            bar.set_postfix({k: f"{v:.3g}" for k, v in report.metrics.items()})
            on_epoch(report)

        with following(job.folder, advance):
            _run_workers(job, settings)
    return _figures(job.folder)


def _run_workers(job: FinetuneJob, settings: FinetuneSpec) -> None:
    resources = job.spec.resources
    require_resources(resources.finetune_cpus, resources.finetune_gpus, purpose="fine-tuning")
    store = job.folder.store
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers,
            use_gpu=resources.finetune_gpus > 0,
            resources_per_worker={"CPU": resources.finetune_cpus, "GPU": resources.finetune_gpus},
        ),
        run_config=ray.train.RunConfig(
            name=f"finetune-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}",
            storage_path=store.path("train"),
            storage_filesystem=store.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise StageError(f"fine-tuning failed: {error}") from error


def _worker(config: dict[str, FinetuneJob]) -> None:
    """One process of the data-parallel training."""
    job = config["job"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    spec, settings = job.spec, job.spec.backbone.finetune
    assert settings is not None
    set_determinism(seed=spec.seed, num_threads=settings.training.num_threads)
    videos = read_labelled_videos(job.prepared, training_subset=spec.training_subset)
    model = initial_backbone(
        spec.backbone,
        num_classes=len(videos.class_names),
        content_hash=job.checkpoint_hash,
    )
    network = _effective(spec.backbone, model)
    if rank == 0:
        write_network_config(job.folder, network)
    device = ray.train.torch.get_device()
    parallel = ray.train.torch.prepare_model(model.to(device))
    train(
        parallel,
        _task(spec, settings, videos, network, rank=rank, world=world, device=device),
        settings=settings.training,
        seed=spec.seed,
        folder=job.folder,
        on_epoch=lambda report: ray.train.report({"epoch": report.epoch, **report.metrics}),
        writes=rank == 0,
    )


def _task(
    spec: PipelineSpec,
    settings: FinetuneSpec,
    videos: LabelledVideos,
    network: BackboneConfig,
    *,
    rank: int,
    world: int,
    device: torch.device,
) -> TrainingTask[ClipBatch]:
    geometry = clip_geometry(spec.clips)
    training = videos.of_subset(spec.training_subset)
    visits_per_batch = max(1, settings.training.batch_size // settings.clips_per_segment)
    num_segments = sum(len(video.labels) for video in training)
    num_batches = max(1, num_segments // (visits_per_batch * world))

    def batches_of(visits: list[SegmentVisit]) -> Iterator[ClipBatch]:
        return read_batches(
            visits,
            geometry,
            visits_per_batch=visits_per_batch,
            num_threads=settings.decode_threads,
        )

    def training_batches(epoch: int) -> Iterator[ClipBatch]:
        visits = draw_epoch(
            training,
            geometry,
            clips_per_segment=settings.clips_per_segment,
            seed=spec.seed,
            epoch=epoch,
        )
        # Every worker makes as many steps as the others; the rest of an epoch's order is left out.
        mine = visits[rank::world][: num_batches * visits_per_batch]
        return batches_of(mine)

    def validation_batches() -> Iterator[ClipBatch]:
        return batches_of(
            spread_evenly(
                videos.of_subset(spec.evaluation.subset),
                geometry,
                clips_per_segment=settings.validation_clips_per_segment,
            )
        )

    compute_loss = _loss_function(network, settings, device)
    return TrainingTask(training_batches, num_batches, validation_batches, compute_loss)


def _loss_function(
    network: BackboneConfig, settings: FinetuneSpec, device: torch.device
) -> Callable[[nn.Module, ClipBatch, torch.Generator], LossReport]:
    augment = _augmentation(settings)

    def compute_loss(model: nn.Module, batch: ClipBatch, generator: torch.Generator) -> LossReport:
        frames = batch.frames.to(device)
        if model.training:
            frames = augment_frames(frames, config=augment, generator=generator)
        logits = model(normalize_frames(frames, mean=network.mean, std=network.std))
        labels = batch.labels.to(device)
        loss = classifier_loss(
            logits,
            labels,
            nuclear_norm_weight=settings.nuclear_norm_weight if model.training else 0.0,
            label_smoothing=settings.label_smoothing if model.training else 0.0,
        )
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return LossReport(loss.total, {"accuracy": accuracy})

    return compute_loss


def clip_geometry(clips: ClipsSpec) -> ClipGeometry:
    """How the spec cuts clips."""
    return ClipGeometry(Fraction(clips.frame_rate), clips.frames_per_clip, clips.short_side)


def _augmentation(settings: FinetuneSpec) -> AugmentConfig:
    crop = settings.random_crop
    return AugmentConfig(
        contrast_low=1 - settings.contrast,
        contrast_high=1 + settings.contrast,
        invert_probability=settings.invert_probability,
        max_brightness=settings.brightness,
        max_shift_pixels=settings.max_shift_pixels,
        flip_probability=settings.flip_probability,
        random_crop=None if crop is None else RandomCropConfig(**crop.model_dump()),
    )


def _effective(spec: BackboneSpec, model: Backbone) -> BackboneConfig:
    return effective_config(model.config, mean=spec.mean, std=spec.std)


def _figures(folder: StageFolder) -> dict[str, float | str]:
    figures: dict[str, float | str] = {
        "weights_hash": weights_hash(load_torch(folder.store, folder.weights))
    }
    best = best_epoch(read_history(folder))
    if best is not None:
        figures |= {name: value for name, value in best.metrics.items() if np.isfinite(value)}
    folder.store.delete_file(folder.training_state)
    return figures
