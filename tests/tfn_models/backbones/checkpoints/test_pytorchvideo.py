"""pytorchvideo's names lead to ours, and its networks' features are those it computed itself."""

import pytest
import torch

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    SLOWFAST_R50,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    Network,
    check_every_name,
    named_shapes,
    published_shapes,
    with_counters,
)
from tests.tfn_models.backbones.golden import (
    TOLERANCE,
    golden_clips,
    golden_error,
    golden_weights,
)
from tfn_models.backbones import BACKBONES, build_backbone
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.reading import load_checkpoint

PUBLISHED = {
    "ptv_slowfast_r50": SLOWFAST_R50,
    "ptv_slowfast_r101": SLOWFAST_R101,
    "ptv_slowfast_16x8_r101_50_50": SLOWFAST_R101_50_50,
    "ptv_i3d_r50": I3D_R50,
}


@pytest.mark.parametrize("network", [SLOWFAST_R101_50_50, I3D_R50], ids=["slowfast", "i3d"])
def test_every_name(network: Network) -> None:
    check_every_name("pytorchvideo", network)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rule_gives_the_published_names(name: str) -> None:
    expected = with_counters(named_shapes("pytorchvideo", PUBLISHED[name]))
    assert published_shapes(name) == expected


@pytest.mark.parametrize(
    ("architecture", "network"), [("slowfast_r50", SLOWFAST_R50), ("i3d_r50", I3D_R50)]
)
def test_features_of_pytorchvideo(architecture: str, network: Network) -> None:
    """From its names to its features: made-up weights, and what pytorchvideo 0.1.5 made of them."""
    ours = golden_weights(architecture)
    rename = dict(
        zip(named_shapes("own", network), named_shapes("pytorchvideo", network), strict=True)
    )
    model = build_backbone(BACKBONES[architecture]).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    load_checkpoint(model, {rename[name]: tensor for name, tensor in ours.items()})
    suffix = "_linspace" if architecture == "slowfast_r50" else ""
    clips = golden_clips(architecture, model)
    assert golden_error(architecture, model, clips, suffix=suffix) < TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "blocks.7.proj.bias",
        "blocks.5.proj.bias",
        "blocks.5.x",
        "blocks.5.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight",
        "blocks.2.res_blocks.0.branch2.conv_a.weight",
        "blocks.1.res_blocks.0.branch2.conv_d.weight",
        "blocks.1.res_blocks.0.branch2.act_a.weight",
        "blocks.0.multipathway_blocks.2.conv.weight",
        "s1.pathway0_stem.conv.weight",
        "",
        "projection",
    ],
)
def test_unknown_names(name: str) -> None:
    """Of its slow_r50, for one, whose blocks.2 is a stage and whose blocks.5 is the projection."""
    assert SCHEMES["pytorchvideo"].translate(name) is None
