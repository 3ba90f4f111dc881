"""The table of backbones, and what each of them must do: compile, run in bf16, be cut in two."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from tfn_models.backbones import (
    BACKBONES,
    SLOWFAST_TINY,
    Backbone,
    BackboneConfig,
    I3dInceptionConfig,
    I3dResNetConfig,
    build_backbone,
)

SMALL: dict[str, BackboneConfig] = {
    "slowfast": replace(SLOWFAST_TINY, num_classes=5),
    "slowfast, linspace": replace(SLOWFAST_TINY, num_classes=5, slow_sampling="linspace"),
    "i3d_resnet": I3dResNetConfig(num_classes=5, channels=8, depths=(1, 2, 1, 1), expansion=2),
    "i3d_inception": I3dInceptionConfig(num_classes=5, channel_divisor=8),
}
FEATURE_DIMS = {
    "slowfast_r101": 2304,
    "slowfast_r101_50_50": 2304,
    "slowfast_r101_mmaction2": 2304,
    "slowfast_r50": 2304,
    "slowfast_r50_mmaction2": 2304,
    "slowfast_tiny": 384,
    "i3d_r50": 2048,
    "i3d_r50_mmaction2": 2048,
    "i3d_inception": 1024,
}


def build(name: str) -> Backbone:
    """A small network whose residual branches are open, as after a training."""
    torch.manual_seed(0)
    model = build_backbone(SMALL[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return model.eval()


def clips_of(num_clips: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_clips, 3, 16, 32, 32, generator=generator)


@dataclass(frozen=True, kw_only=True)
class StrangeConfig(BackboneConfig):
    @property
    def feature_dim(self) -> int:
        return 1

    def check_clip(self, num_frames: int, *, height: int, width: int) -> None: ...


def test_a_foreign_config_is_refused() -> None:
    with pytest.raises(ValueError, match="got StrangeConfig"):
        build_backbone(StrangeConfig())


@pytest.mark.parametrize("name", BACKBONES)
def test_shipped_backbones_keep_to_the_interface(name: str) -> None:
    config = BACKBONES[name]
    with torch.device("meta"):
        model = build_backbone(replace(config, num_classes=7))
        clips = torch.zeros(2, 3, 32, 64, 64)
    assert model.feature_dim == config.feature_dim == FEATURE_DIMS[name]
    assert (model.projection.in_features, model.projection.out_features) == (config.feature_dim, 7)
    assert model.forward_features(clips).shape == (2, config.feature_dim)
    assert model(clips).shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_projection_of_the_features(name: str) -> None:
    model = build(name)
    with torch.inference_mode():
        features, logits = model.forward_features(clips_of(2)), model(clips_of(2))
        assert torch.equal(logits, model.projection(features))


@pytest.mark.parametrize("name", SMALL)
def test_a_clip_has_the_same_feature_in_any_batch(name: str) -> None:
    model = build(name)
    with torch.inference_mode():
        together = model.forward_features(clips_of(3))
        alone = [model.forward_features(clips_of(3)[[number]]) for number in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_the_whole_forward_pass_compiles(name: str) -> None:
    """`fullgraph` is an error at the first graph break."""
    model = build(name)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips_of(2)), model(clips_of(2)))


@pytest.mark.parametrize("name", SMALL)
def test_bf16_gives_nearly_the_same_features(name: str) -> None:
    model = build(name)
    with torch.inference_mode():
        exact = model.forward_features(clips_of(2))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.forward_features(clips_of(2))
            assert model(clips_of(2)).isfinite().all()
    assert rounded.dtype == torch.float32
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < float(error) < 0.03


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_a_network_cast_to_bf16_makes_logits(name: str) -> None:
    """Its features are fp32, which its projection of bf16 once refused to read."""
    exact = build(name)(clips_of(2))
    model = build(name).bfloat16()
    logits = model(clips_of(2).bfloat16())
    assert (model.forward_features(clips_of(2).bfloat16()).dtype, logits.dtype) == (
        torch.float32,
        torch.bfloat16,
    )
    error = (logits.float() - exact).abs().max() / exact.abs().max()
    assert 0 < float(error) < 0.05


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_gets_a_finite_gradient(name: str) -> None:
    model = build(name).train()
    model(clips_of(2)).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name
