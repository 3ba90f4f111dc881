"""mmaction2's networks, written out by its definition under its names, give the same logits.

No file of its own was at hand: names, strides and the order of its head follow its modules' code.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    SLOWFAST_R101_50_50,
    SMALL,
    SMALL_I3D,
    Network,
    check_every_name,
    made_up,
)
from tfn_models.backbones import build_backbone
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.reading import NamedCheckpoint, read_names
from tfn_models.backbones.i3d_resnet import I3dResNetConfig
from tfn_models.backbones.slowfast import SlowFastConfig

SPEED_RATIO = 4
SMALL_SLOW_ONLY = replace(
    SMALL_I3D, slow_kernels=((1,), (1,), (3,), (3,)), stem_frames=1, depths=(1, 1, 2, 1)
)


class Oracle:
    """Its recogniser's forward pass, one convolution after the other."""

    def __init__(self, weights: dict[str, Tensor], *, strides: tuple[int, int, int]) -> None:
        """`strides`: over time, of the stem, of the pooling behind it, and of that after res2."""
        self.weights = weights
        self.strides = strides

    def unit(self, x: Tensor, name: str, *, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        """A convolution with half its kernel as padding, and its norm where it has one."""
        kernel = self.weights[f"{name}.conv.weight"]
        x = F.conv3d(x, kernel, stride=stride, padding=[size // 2 for size in kernel.shape[2:]])
        if f"{name}.bn.weight" not in self.weights:
            return x
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.weights[f"{name}.bn.{part}"] for part in parts))

    def stem(self, x: Tensor, start: str) -> Tensor:
        x = F.relu(self.unit(x, f"{start}conv1", stride=(self.strides[0], 2, 2)))
        return F.max_pool3d(x, (1, 3, 3), stride=(self.strides[1], 2, 2), padding=(0, 1, 1))

    def stage(self, x: Tensor, start: str, number: int) -> Tensor:
        block = 0
        while f"{start}layer{number}.{block}.conv1.conv.weight" in self.weights:
            name = f"{start}layer{number}.{block}"
            pixels = 2 if number > 1 and block == 0 else 1
            branch = F.relu(self.unit(x, f"{name}.conv1"))
            branch = F.relu(self.unit(branch, f"{name}.conv2", stride=(1, pixels, pixels)))
            branch = self.unit(branch, f"{name}.conv3")
            if block == 0:
                x = self.unit(x, f"{name}.downsample", stride=(1, pixels, pixels))
            x = F.relu(x + branch)
            block += 1
        return x

    def lateral(self, slow: Tensor, fast: Tensor, name: str) -> Tensor:
        name = f"backbone.slow_path.{name}_lateral"
        made = self.unit(fast, name, stride=(SPEED_RATIO, 1, 1))
        made = F.relu(made) if f"{name}.bn.weight" in self.weights else made
        return torch.cat([slow, made], dim=1)

    def slowfast(self, clips: Tensor) -> Tensor:
        slow_path, fast_path = "backbone.slow_path.", "backbone.fast_path."
        slow = F.interpolate(clips, mode="nearest", scale_factor=(1 / SPEED_RATIO, 1.0, 1.0))
        slow, fast = self.stem(slow, slow_path), self.stem(clips, fast_path)
        slow = self.lateral(slow, fast, "conv1")
        for number in range(1, 5):
            slow, fast = self.stage(slow, slow_path, number), self.stage(fast, fast_path, number)
            if number < 4:
                slow = self.lateral(slow, fast, f"layer{number}")
        # Its head unpacks (slow, fast) in its own order: the fast pathway's features come first.
        return self.head(torch.cat([fast.mean((2, 3, 4)), slow.mean((2, 3, 4))], dim=1))

    def resnet(self, clips: Tensor) -> Tensor:
        x = self.stem(clips, "backbone.")
        for number in range(1, 5):
            x = self.stage(x, "backbone.", number)
            if number == 1:
                x = F.max_pool3d(x, (self.strides[2], 1, 1), stride=(self.strides[2], 1, 1))
        return self.head(x.mean((2, 3, 4)))

    def head(self, features: Tensor) -> Tensor:
        parts = self.weights["cls_head.fc_cls.weight"], self.weights["cls_head.fc_cls.bias"]
        return F.linear(features, *parts)


def our_logits(checkpoint: NamedCheckpoint, clips: Tensor, **settings: int) -> Tensor:
    model = build_backbone(replace(checkpoint.config, **settings)).eval()
    model.load_state_dict(dict(checkpoint.state), strict=False)
    with torch.no_grad():
        logits: Tensor = model(clips)
    return logits


def made_up_clips() -> Tensor:
    return torch.randn(2, 3, 16, 48, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("network", [SLOWFAST_R101_50_50, I3D_R50], ids=["slowfast", "i3d"])
def test_every_name(network: Network) -> None:
    check_every_name("mmaction2", network)


@pytest.mark.parametrize("fusion_norm", [False, True])
def test_slowfast_gives_the_same_logits(fusion_norm: bool) -> None:
    weights = made_up("mmaction2", replace(SMALL, fusion_norm=fusion_norm))
    checkpoint = read_names(weights)
    assert isinstance(checkpoint.config, SlowFastConfig)
    assert checkpoint.scheme == "mmaction2"
    assert checkpoint.config.fusion_norm == checkpoint.config.fusion_relu == fusion_norm
    clips = made_up_clips()
    expected = Oracle(weights, strides=(1, 1, 1)).slowfast(clips)
    torch.testing.assert_close(our_logits(checkpoint, clips), expected)


@pytest.mark.parametrize(
    ("network", "strides", "frames"),
    [(SMALL_I3D, (2, 2, 2), (4, 2)), (SMALL_SLOW_ONLY, (1, 1, 1), (1, 1))],
    ids=["i3d", "slow only"],
)
def test_resnets_give_the_same_logits(
    network: Network, strides: tuple[int, int, int], frames: tuple[int, int]
) -> None:
    weights = made_up("mmaction2", network)
    checkpoint = read_names(weights)
    config = checkpoint.config
    assert isinstance(config, I3dResNetConfig)
    assert (config.stem_stride_frames, config.pooled_frames) == frames
    clips = made_up_clips()
    expected = Oracle(weights, strides=strides).resnet(clips)
    torch.testing.assert_close(our_logits(checkpoint, clips, frame_stride=1), expected)


def test_a_backbone_alone_has_no_prefix() -> None:
    weights = made_up("mmaction2", SMALL)
    alone = {name.removeprefix("backbone."): tensor for name, tensor in weights.items()}
    found, expected = read_names(alone), read_names(weights)
    assert found.config == expected.config
    assert all(torch.equal(found.state[name], expected.state[name]) for name in expected.state)


def test_a_detectors_head_is_left_out_by_name() -> None:
    weights = made_up("mmaction2", SMALL)
    del weights["cls_head.fc_cls.weight"], weights["cls_head.fc_cls.bias"]
    weights["roi_head.bbox_head.fc_cls.weight"] = torch.zeros(81, 320)
    checkpoint = read_names(weights)
    assert checkpoint.left_out == checkpoint.head_names == ("roi_head.bbox_head.fc_cls.weight",)
    model = build_backbone(checkpoint.config)
    with pytest.raises(ValueError, match=r"no projection; it has a head of its own: roi_head"):
        checkpoint.put_into(model)
    checkpoint.put_into(model, with_projection=False)


@pytest.mark.parametrize(
    "name",
    [
        "backbone.layer5.0.conv1.conv.weight",
        "backbone.layer1.0.conv4.conv.weight",
        "backbone.slow_path.layer4_lateral.conv.weight",
        "backbone.fast_path.conv1_lateral.conv.weight",
        "backbone.layer2.1.non_local_block.g.conv.weight",
        "backbone.layer1.0.conv1.weight",
        "cls_head.fc_cls.scale",
    ],
)
def test_unknown_names(name: str) -> None:
    assert SCHEMES["mmaction2"].translate(name) is None
