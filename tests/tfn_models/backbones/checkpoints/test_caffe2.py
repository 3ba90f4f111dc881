"""Caffe2's names lead to ours, beside what its optimiser remembers."""

import pytest
import torch

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    SMALL,
    SMALL_I3D,
    Network,
    check_every_name,
    made_up,
    named_shapes,
    published_shapes,
)
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.reading import read_names


@pytest.mark.parametrize("network", [SLOWFAST_R101_50_50, I3D_R50], ids=["slowfast", "i3d"])
def test_every_name(network: Network) -> None:
    check_every_name("caffe2", network)


def test_the_rule_gives_the_published_names() -> None:
    published = published_shapes("caffe2_slowfast_r101")
    assert set(published) == set(named_shapes("caffe2", SLOWFAST_R101))


@pytest.mark.parametrize("network", [SMALL, SMALL_I3D], ids=["slowfast", "i3d"])
def test_what_the_optimiser_remembers_is_passed_over(network: Network) -> None:
    weights = made_up("caffe2", network)
    bare = read_names(weights)
    trained = weights | {f"{name}_momentum": tensor for name, tensor in weights.items()}
    trained |= {"lr": torch.tensor(0.1), "model_iter": torch.tensor([7])}
    found = read_names(trained)
    assert found.scheme == "caffe2"
    assert found.config == bare.config
    assert found.state.keys() == bare.state.keys() == named_shapes("own", network).keys()


def test_a_lateral_connection_is_there_once() -> None:
    """It is called after the last block before it, so two blocks could claim it."""
    weights = made_up("caffe2", SMALL)
    weights["t_res4_0_branch2c_bn_subsample_w"] = weights["t_res4_1_branch2c_bn_subsample_w"]
    with pytest.raises(ValueError, match=r"t_res4_0_.* and t_res4_1_.* are one .*fusions\.3"):
        read_names(weights)


@pytest.mark.parametrize(
    "name",
    [
        "nonlocal_conv4_1_theta_w",
        "res2_0_branch2d_w",
        "res6_0_branch2a_w",
        "t_res5_2_branch2c_bn_subsample_w",
        "pool1_subsample_w",
        "conv1_b",
        "res2_0_branch2a_bn_rv",
    ],
)
def test_unknown_names(name: str) -> None:
    assert SCHEMES["caffe2"].translate(name) is None
