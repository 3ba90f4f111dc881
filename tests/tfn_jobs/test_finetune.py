"""The settings of fine-tuning, and a checkpoint used as it is; the training itself is part of the
whole runs in `tests/`.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tfn_jobs.conftest import MakeSpec
from tfn_jobs.backbones import read_network_config
from tfn_jobs.finetune import FinetuneJob, _augmentation, _loss_function, finetune
from tfn_jobs.pipeline import Pipeline
from tfn_jobs.pipeline_spec import FinetuneSpec
from tfn_jobs.training_clips import ClipBatch
from tfn_models.backbones import build_backbone
from tfn_models.backbones.augment import SLOWFAST_RECIPE, AugmentConfig
from tfn_models.backbones.slowfast import SLOWFAST_TINY
from tfn_platform.checkpoint import load_torch, weights_hash
from tfn_platform.errors import DataError
from tfn_platform.store import Store


def test_a_checkpoint_as_it_is(tmp_path: Path, store: Store, make_spec: MakeSpec) -> None:
    """Without a fine-tuning, its weights and its classes are the stage's."""
    config = replace(SLOWFAST_TINY, num_classes=7)
    published = build_backbone(config).state_dict()
    path = tmp_path / "published.pth"
    torch.save({"state_dict": published}, path)
    backbone = {"architecture": "slowfast_tiny", "checkpoint": str(path), "finetune": None}
    folder = store.stage("finetune", "key")
    job = FinetuneJob(make_spec(backbone=backbone), store.stage("prepare", "key"), folder)
    figures = finetune(job, on_epoch=lambda report: None)
    made = load_torch(store, folder.weights)
    assert all(torch.equal(made[name], tensor) for name, tensor in published.items())
    assert figures == {"weights_hash": weights_hash(published)}
    assert read_network_config(folder, "slowfast_tiny") == config


def test_a_projection_that_a_checkpoint_lacks_is_the_seeds(
    tmp_path: Path, store: Store, make_spec: MakeSpec
) -> None:
    """It was drawn from wherever torch's generator stood: one stage, two different weights."""
    state = build_backbone(SLOWFAST_TINY).state_dict()
    path = tmp_path / "features.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith("projection.")}, path)
    backbone = {"architecture": "slowfast_tiny", "checkpoint": str(path), "finetune": None}
    hashes = []
    for attempt, seed in enumerate((0, 0, 1)):
        folder = store.stage("finetune", f"key{attempt}")
        spec = make_spec(backbone=backbone, seed=seed)
        job = FinetuneJob(spec, store.stage("prepare", "key"), folder)
        hashes.append(finetune(job, on_epoch=lambda report: None)["weights_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_checkpoint_that_has_changed_since_the_plan(
    tmp_path: Path, store: Store, make_spec: MakeSpec
) -> None:
    path = tmp_path / "published.pth"
    torch.save(build_backbone(SLOWFAST_TINY).state_dict(), path)
    backbone = {"architecture": "slowfast_tiny", "checkpoint": str(path), "finetune": None}
    pipeline = Pipeline.open(make_spec(backbone=backbone), store)
    folder, planned = store.stage("finetune", "key"), pipeline.stages.checkpoint_hash
    job = FinetuneJob(pipeline.spec, store.stage("prepare", "key"), folder, planned)
    finetune(job, on_epoch=lambda report: None)
    torch.save(build_backbone(SLOWFAST_TINY).state_dict(), path)
    for use in (lambda: finetune(job, on_epoch=lambda report: None), pipeline.plan):
        with pytest.raises(DataError, match=rf"has changed since .* \({planned}, now"):
            use()


def test_frames_are_normalised_as_the_network_is_fed_later() -> None:
    """By the config that is kept next to the weights, not by numbers of its own."""
    seen: list[torch.Tensor] = []

    class Watch(nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            seen.append(clips)
            return torch.zeros(len(clips), 3)

    network = replace(SLOWFAST_TINY, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    frames = torch.arange(2 * 4 * 2 * 2 * 3, dtype=torch.uint8).reshape(2, 4, 2, 2, 3)
    compute_loss = _loss_function(network, FinetuneSpec(), torch.device("cpu"))
    compute_loss(Watch().eval(), ClipBatch(frames, torch.tensor([0, 2])), torch.Generator())
    for channel, (mean, std) in enumerate(zip(network.mean, network.std, strict=True)):
        expected = (frames[..., channel].float() / 255 - mean) / std
        torch.testing.assert_close(seen[0][:, channel], expected)


def test_settings_of_the_augmentation() -> None:
    """Nothing unless asked for; a random crop and flips are SlowFast's recipe."""
    nothing = AugmentConfig(
        contrast_low=1, contrast_high=1, invert_probability=0, max_brightness=0, max_shift_pixels=0
    )
    assert _augmentation(FinetuneSpec()) == nothing
    recipe = FinetuneSpec.model_validate({"random_crop": {}, "flip_probability": 0.5})
    assert _augmentation(recipe) == SLOWFAST_RECIPE
    small = FinetuneSpec.model_validate(
        {"random_crop": {"short_side_low": 48, "short_side_high": 60, "size": 40}, "contrast": 0.4}
    )
    config = _augmentation(small)
    assert (config.contrast_low, config.contrast_high) == (0.6, 1.4)
    assert config.random_crop is not None
    assert config.random_crop.size == 40
