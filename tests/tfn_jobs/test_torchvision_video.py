"""torchvision's video models behind our interface, against the models as they come."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import nn
from torchvision.models import video

from tfn_jobs.torchvision_video import (
    TORCHVISION,
    TorchvisionBackbone,
    TorchvisionConfig,
    build_torchvision,
    from_torchvision,
)

NAMES = list(TORCHVISION)
FEATURE_DIMS = {
    "r3d_18": 512,
    "mc3_18": 512,
    "r2plus1d_18": 512,
    "s3d": 1024,
    "mvit_v1_b": 768,
    "mvit_v2_s": 768,
    "swin3d_t": 768,
    "swin3d_s": 768,
    "swin3d_b": 1024,
}
NUM_CLASSES = 5


def config_of(name: str) -> TorchvisionConfig:
    return cast(TorchvisionConfig, replace(TORCHVISION[name], num_classes=NUM_CLASSES))


def shipped(name: str) -> nn.Module:
    """The model as torchvision builds it."""
    model: nn.Module = getattr(video, name)(weights=None, num_classes=NUM_CLASSES)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_to_the_interface(name: str) -> None:
    config = config_of(name)
    size = 224 if config.fixed_size else 64
    with torch.device("meta"):
        model = build_torchvision(config).eval()
        clips = torch.zeros(2, 3, 32, size, size)
        assert model.forward_features(clips).shape == (2, model.feature_dim)
        assert model(clips).shape == (2, NUM_CLASSES)
    assert model.feature_dim == config.feature_dim == FEATURE_DIMS[name]
    assert isinstance(model.projection, nn.Linear)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_torchvision_has_one_place(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_torchvision(config_of(name)), shipped(name)
    renamed = from_torchvision(config_of(name), theirs.state_dict())
    own = ours.state_dict()
    assert {key: tensor.shape for key, tensor in renamed.items()} == {
        key: tensor.shape for key, tensor in own.items()
    }


@pytest.mark.parametrize(
    ("name", "num_frames", "side"),
    [
        ("r3d_18", 8, 32),
        ("mc3_18", 8, 32),
        ("r2plus1d_18", 8, 32),
        ("s3d", 14, 224),  # One window of its last pooling: 2 x 7 x 7.
        pytest.param("mvit_v2_s", 32, 224, marks=pytest.mark.slow),
        ("swin3d_t", 8, 32),
    ],
)
@torch.inference_mode()
def test_logits_are_those_of_torchvision(name: str, num_frames: int, side: int) -> None:
    torch.manual_seed(0)
    theirs = shipped(name)
    *_, head_bias = theirs.parameters()
    nn.init.zeros_(head_bias)  # Else it would hide S3D's features, which start near 1e-6.
    ours = build_torchvision(config_of(name)).eval()
    ours.load_state_dict(from_torchvision(ours.config, theirs.state_dict()))
    clips = torch.randn(1, 3, num_frames, side, side)
    expected = theirs(clips[:, :, :: ours.config.frame_stride])
    error = (ours(clips) - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-5


@torch.inference_mode()
def test_s3d_features_are_a_true_mean() -> None:
    """Not one of overlapping windows, in which the middle would count more."""
    torch.manual_seed(0)
    model = build_torchvision(config_of("s3d")).eval()
    seen: list[torch.Tensor] = []
    features = cast(nn.Module, model.network.features)
    features.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    found = model.forward_features(torch.randn(2, 3, 24, 64, 64))
    assert seen[0].shape[2:] == (3, 2, 2)
    torch.testing.assert_close(found, seen[0].flatten(2).sum(2) / 12)


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "swin3d_t"])
def test_the_smallest_clip_can_be_read_and_a_smaller_one_is_refused(name: str) -> None:
    config = config_of(name)
    model = build_torchvision(config).eval()
    frames, side = config.num_frames, config.side_pixels
    assert model(torch.zeros(1, 3, frames, side, side)).isfinite().all()
    for shape in ((frames - 1, side, side), (frames, side, side - 1), (frames, side - 1, side)):
        with pytest.raises(ValueError, match="clips must .* at least"):
            model(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize(("fewer_frames", "fewer_pixels"), [(1, 0), (0, 1)])
def test_torchvision_itself_cannot_read_less(fewer_frames: int, fewer_pixels: int) -> None:
    """Else the limit of S3D would be tighter than need be."""
    config = config_of("s3d")
    side = config.side_pixels - fewer_pixels
    features = cast(nn.Module, shipped("s3d").features)
    with pytest.raises(RuntimeError, match="too small"):
        features(torch.zeros(1, 3, config.num_frames - fewer_frames, side, side))


@pytest.mark.parametrize(
    ("num_frames", "height", "width", "message"),
    [
        (16, 224, 224, "exactly 32 frames for mvit_v2_s, got 16"),
        (33, 224, 224, "exactly 32 frames for mvit_v2_s, got 33"),
        (32, 256, 256, "exactly 224 pixels high and wide for mvit_v2_s, got 256 and 256"),
        (32, 224, 398, "got 224 and 398"),
        (32, 112, 224, "got 112 and 224"),
    ],
)
def test_mvit_reads_one_size_only(num_frames: int, height: int, width: int, message: str) -> None:
    config = config_of("mvit_v2_s")
    config.check_clip(32, height=224, width=224)
    with pytest.raises(ValueError, match=message):
        config.check_clip(num_frames, height=height, width=width)


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "swin3d_t"])
def test_every_weight_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model: TorchvisionBackbone = build_torchvision(replace(config_of(name), dropout=0.0))
    model(torch.randn(2, 3, 8, 32, 32)).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
