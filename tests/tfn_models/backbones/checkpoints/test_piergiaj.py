"""The names of the Inception I3D's port, whose logits are a convolution."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tfn_models.backbones.golden import (
    FOLDER,
    golden_clips,
    golden_error,
    golden_weights,
)
from tfn_models.backbones import build_backbone
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.reading import load_checkpoint, read_names
from tfn_models.backbones.i3d_inception import I3D_INCEPTION, I3dInceptionConfig


def port_weights() -> dict[str, Tensor]:
    """The golden weights as the port's file holds them."""
    weights = golden_weights("i3d_inception", norm="bn", conv="conv3d")
    return {name.replace("projection.", "logits.conv3d."): weights[name] for name in weights}


def test_the_ports_names_and_shapes_lead_to_its_features() -> None:
    weights = port_weights()
    assert weights["logits.conv3d.weight"].ndim == 5
    model = build_backbone(I3D_INCEPTION).eval()
    checkpoint = load_checkpoint(model, weights)
    assert checkpoint.scheme == "piergiaj"
    clips = golden_clips("i3d_inception", model, num_frames=16)
    assert golden_error("i3d_inception", model, clips) < 1e-5


def test_every_layer_is_listed() -> None:
    """57 convolutions with a norm each, and the logits."""
    layers = json.loads((FOLDER / "i3d_inception_layers.json").read_text())
    assert len(layers) == 58
    assert len(port_weights()) == 57 * 5 + 2


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_smaller_networks(divisor: int) -> None:
    config = I3dInceptionConfig(channel_divisor=divisor, num_classes=7)
    state = build_backbone(config).state_dict()
    weights = {name.replace("projection.", "logits.conv3d."): state[name] for name in state}
    for name in ("logits.conv3d.weight", "logits.conv3d.bias"):
        weights[name] = weights[name] + np.pi
    checkpoint = read_names(weights)
    assert checkpoint.config == config
    assert torch.equal(checkpoint.state["projection.bias"], weights["logits.conv3d.bias"])


@pytest.mark.parametrize(
    "name",
    ["Mixed_3b.b4.conv3d.weight", "Mixed_3b.b0.conv3d.x", "Logits.conv3d.weight", "Conv3d.weight"],
)
def test_unknown_names(name: str) -> None:
    assert SCHEMES["piergiaj"].translate(name) is None
