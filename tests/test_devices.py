"""Every model runs where its inputs are: on a GPU whose tensors have no data.

With fake tensors an operation that mixes devices is an error, as it is on a real GPU, and none is
needed to see it. What looks at values (checks of masks, say) is left out, as it is by
`torch.compile`; so are gradients, which torch computes on the device itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tfn_models.refine.toy_videos import FULL
from tfn_models.backbones import BACKBONES, build_backbone
from tfn_models.backbones.augment import SLOWFAST_RECIPE, AugmentConfig, augment_frames
from tfn_models.backbones.crops import RandomCropConfig, draw_crops
from tfn_models.backbones.frames import normalize_frames
from tfn_models.bmn.model import BmnConfig, build_bmn
from tfn_models.classifier.loss import classifier_loss
from tfn_models.classifier.model import ClassifierConfig, build_classifier
from tfn_models.fusion.boundary_maps import MapFusion
from tfn_models.fusion.class_scores import ClassFusion
from tfn_models.layers.resize import resize_sequence
from tfn_models.layers.roi_align import roi_align
from tfn_models.refine.model import build_refine

GPU = torch.device("cuda", 0)
BMN = BmnConfig(feature_dim=8, num_bins=9, base_channels=8, map_channels=(6, 10, 4))


@contextmanager
def fake_tensors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, new tensors have a device and a shape, and no data."""
    with monkeypatch.context() as patch, FakeTensorMode(), torch.no_grad():
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        yield


def on_gpu(model: nn.Module) -> nn.Module:
    """The model with parameters and buffers of the same shapes on the GPU."""
    for module in model.modules():
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype, device=GPU)
                    is_weight = isinstance(value, nn.Parameter)
                    values[name] = nn.Parameter(empty) if is_weight else empty
    return model


def test_bmn(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_bmn(BMN)
    with fake_tensors(monkeypatch):
        maps = on_gpu(model)(torch.empty(2, 9, 8, device=GPU))
        assert {part.device for part in vars(maps).values()} == {GPU}


def test_refine(monkeypatch: pytest.MonkeyPatch) -> None:
    # cuDNN's LSTM looks at the addresses of its weights, which fake ones have not.
    model = build_refine(replace(FULL, use_lstm=False))
    with fake_tensors(monkeypatch):
        output = on_gpu(model)(
            torch.empty(2, 12, 16, device=GPU),
            mask=torch.empty(2, 12, dtype=torch.bool, device=GPU),
            proposals=torch.empty(2, 5, 2, device=GPU),
            proposal_mask=torch.empty(2, 5, dtype=torch.bool, device=GPU),
        )
        assert all(stage.offsets.device == GPU for stage in output.stages)
        assert output.action_logits is not None and output.action_logits.device == GPU


@pytest.mark.parametrize("pooling", ["mean", "transformer"])
def test_classifier(
    monkeypatch: pytest.MonkeyPatch, pooling: Literal["mean", "transformer"]
) -> None:
    model = build_classifier(
        ClassifierConfig(num_classes=3, feature_dim=16, pooling=pooling, transformer_channels=32)
    )
    with fake_tensors(monkeypatch):
        mask = torch.empty(2, 7, dtype=torch.bool, device=GPU)
        logits = on_gpu(model)(torch.empty(2, 7, 16, device=GPU), mask)
        labels = torch.empty(2, dtype=torch.int64, device=GPU)
        loss = classifier_loss(logits, labels, nuclear_norm_weight=0.1)
        assert loss.total.device == GPU


@pytest.mark.parametrize("config", [AugmentConfig(), SLOWFAST_RECIPE], ids=["shifts", "crops"])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_backbones(monkeypatch: pytest.MonkeyPatch, name: str, config: AugmentConfig) -> None:
    with torch.device("meta"):
        model = build_backbone(BACKBONES[name])
    # Where crops lie is read as numbers, which fake tensors have not.
    crops = draw_crops(
        1, height=64, width=64, config=RandomCropConfig(), generator=torch.Generator()
    )
    monkeypatch.setattr("tfn_models.backbones.augment.draw_crops", lambda *_, **__: crops)
    with fake_tensors(monkeypatch):
        frames = torch.empty(1, 32, 64, 64, 3, dtype=torch.uint8, device=GPU)
        frames = augment_frames(frames, config=config, generator=torch.Generator())
        assert on_gpu(model)(normalize_frames(frames)).device == GPU


def test_layers_and_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [build_bmn(replace(BMN, num_bins=bins)) for bins in (6, 9)]
    class_fusion, map_fusion = ClassFusion(3), MapFusion(2, num_bins=9)
    with fake_tensors(monkeypatch):
        assert resize_sequence(torch.empty(2, 7, 4, device=GPU), 5).device == GPU
        segments = torch.empty(2, 3, 2, device=GPU)
        assert roi_align(torch.empty(2, 7, 4, device=GPU), segments, num_bins=4).device == GPU
        assert on_gpu(class_fusion)(torch.empty(3, 5, 2, device=GPU)).device == GPU
        maps = [
            on_gpu(model)(torch.empty(2, bins, 8, device=GPU))
            for model, bins in zip(members, (6, 9), strict=True)
        ]
        assert on_gpu(map_fusion)(maps).regression.device == GPU


def test_a_mixture_of_devices_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_bmn(BMN)
    with fake_tensors(monkeypatch):
        on_gpu(model).start.output.bias = nn.Parameter(torch.empty(1))
        with pytest.raises(RuntimeError, match="device"):
            model(torch.empty(2, 9, 8, device=GPU))
