"""Strict: every tensor finds its partner, or nothing is changed and the message says why."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.tfn_models.backbones.checkpoints.name_rules import (
    RULES,
    SMALL,
    SMALL_I3D,
    Network,
    made_up,
    named_shapes,
    with_counters,
)
from tfn_models.backbones import build_backbone
from tfn_models.backbones.checkpoints.reading import (
    NamedCheckpoint,
    load_checkpoint,
    read_names,
)
from tfn_models.backbones.interface import Backbone
from tfn_models.backbones.slowfast import SlowFastConfig

CONFIG = SlowFastConfig(num_classes=5, depths=(1, 1, 2, 1), slow_channels=8, channel_ratio=4)


def is_unchanged_by(weights: dict[str, Tensor], model: Backbone) -> bool:
    """Whether weights that are refused leave the model as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError):
        load_checkpoint(model, weights)
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def features_of(checkpoint: NamedCheckpoint) -> Tensor:
    clips = torch.randn(1, 3, 32, 48, 40, generator=torch.Generator().manual_seed(0))
    model = build_backbone(checkpoint.config).eval()
    checkpoint.put_into(model, with_projection=False)
    with torch.inference_mode():
        return model.forward_features(clips)


@pytest.mark.parametrize("network", [SMALL, SMALL_I3D], ids=["slowfast", "i3d"])
@pytest.mark.parametrize("scheme", [name for name in RULES if name != "own"])
def test_every_scheme_gives_the_same_features(scheme: str, network: Network) -> None:
    """The same random weights under each program's names: one network, to the last bit."""
    expected = read_names(made_up("own", network))
    found = read_names(made_up(scheme, network))
    # mmaction2's I3D has other strides, which its own test is about.
    found = replace(found, config=expected.config)
    assert torch.equal(features_of(found), features_of(expected))


@pytest.mark.parametrize("scheme", RULES)
def test_loading_copies_every_tensor_and_ignores_counters(scheme: str) -> None:
    weights = made_up(scheme, SMALL)
    for name, shape in with_counters(named_shapes(scheme, SMALL)).items():
        weights.setdefault(name, torch.full(shape, 3))
    checkpoint = read_names(weights)
    model = build_backbone(checkpoint.config)
    checkpoint.put_into(model)
    state = model.state_dict()
    for name, tensor in checkpoint.state.items():
        assert torch.equal(state[name], tensor)
        if name != "projection.weight":
            assert torch.equal(tensor, weights[checkpoint.their_names[name]])
    assert {n for n in state if n not in checkpoint.state} == {n for n in state if "tracked" in n}


def test_a_wrapper_is_passed_over() -> None:
    weights = made_up("pyslowfast", SMALL)
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    assert read_names(wrapped).state.keys() == read_names(weights).state.keys()
    wrapped["head.projection.bias"] = wrapped.pop("module.head.projection.bias")
    with pytest.raises(ValueError):
        read_names(wrapped)


def test_half_precision_is_loaded_as_it_is_rounded() -> None:
    weights = {name: tensor.half() for name, tensor in made_up("own", SMALL).items()}
    model = build_backbone(CONFIG)
    load_checkpoint(model, weights)
    expected = weights["projection.weight"].float()
    assert torch.equal(model.projection.weight.detach(), expected)


def test_loading_without_projection_keeps_our_own() -> None:
    weights = made_up("pytorchvideo", SMALL)
    model = build_backbone(replace(CONFIG, num_classes=9))
    before = model.projection.weight.clone()
    with pytest.raises(ValueError, match="num_classes is 5, asked for is 9"):
        load_checkpoint(model, weights)
    checkpoint = load_checkpoint(model, weights, with_projection=False)
    assert checkpoint.head_names == ("blocks.6.proj.weight", "blocks.6.proj.bias")
    assert torch.equal(model.projection.weight, before)
    name = "blocks.0.multipathway_blocks.1.conv.weight"
    assert torch.equal(model.state_dict()["fast_stem.conv.weight"], weights[name])


def test_features_alone() -> None:
    weights = made_up("pyslowfast", SMALL)
    del weights["head.projection.weight"]
    with pytest.raises(ValueError, match="projection.weight is missing"):
        read_names(weights)
    del weights["head.projection.bias"]
    checkpoint = read_names(weights, unseen=replace(CONFIG, num_classes=7))
    assert not checkpoint.has_projection
    assert checkpoint.config.num_classes == 7
    model = build_backbone(checkpoint.config)
    with pytest.raises(ValueError, match="it has no projection"):
        checkpoint.put_into(model)
    checkpoint.put_into(model, with_projection=False)


def test_missing_and_left_over_tensors_are_refused_and_nothing_is_changed() -> None:
    model = build_backbone(CONFIG)
    weights = made_up("pytorchvideo", SMALL)
    removed = weights.pop("blocks.0.multipathway_blocks.1.norm.bias")
    with pytest.raises(ValueError, match="fast_stem.norm.bias is missing"):
        read_names(weights)
    assert is_unchanged_by(weights, model)
    weights["blocks.0.multipathway_blocks.1.norm.bias"] = removed
    name = "blocks.1.multipathway_blocks.1.res_blocks.0.branch2.conv_a.bias"
    weights[name] = removed
    with pytest.raises(ValueError, match=rf"0\.temporal\.conv\.bias \({name}\) has no place"):
        read_names(weights)
    assert is_unchanged_by(weights, model)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(9), r"slow_stem\.norm\.bias \(s1\.\S+\) is \[9\], must be \[8\]"),
        (torch.zeros(8, dtype=torch.int64), "holds torch.int64, must hold floating-point"),
        (torch.tensor([0.0] * 7 + [torch.nan]), "holds values that are not finite"),
        (torch.tensor([0.0] * 7 + [torch.inf]), "holds values that are not finite"),
    ],
)
def test_a_tensor_that_does_not_fit(tensor: Tensor, message: str) -> None:
    weights = made_up("pyslowfast", SMALL)
    weights["s1.pathway0_stem.bn.bias"] = tensor
    with pytest.raises(ValueError, match=message):
        read_names(weights)


def test_only_the_first_problems_are_listed() -> None:
    weights = {
        name: torch.zeros(3) if name.endswith("running_mean") else tensor
        for name, tensor in made_up("own", SMALL).items()
    }
    with pytest.raises(ValueError, match="; and [0-9]+ more$") as caught:
        read_names(weights)
    assert str(caught.value).count("must be [") == 5


def test_another_network_is_told_from_the_models() -> None:
    model = build_backbone(replace(CONFIG, depths=(2, 1, 2, 1), fusion_norm=False))
    with pytest.raises(ValueError) as caught:
        load_checkpoint(model, made_up("caffe2", SMALL))
    assert "in caffe2's names, is not this network: " in str(caught.value)
    assert "depths is (1, 1, 2, 1), asked for is (2, 1, 2, 1)" in str(caught.value)
    assert "fusion_norm is True, asked for is False" in str(caught.value)


def test_a_checkpoint_checks_itself() -> None:
    checkpoint = read_names(made_up("own", SMALL))
    assert isinstance(checkpoint, NamedCheckpoint)
    with pytest.raises(ValueError, match="do not fit"):
        replace(checkpoint, config=replace(CONFIG, depths=(1, 1, 1, 1)))
