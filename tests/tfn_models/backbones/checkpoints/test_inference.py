"""A network is found out from its tensors' shapes alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    SLOWFAST_R50,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    SMALL,
    Network,
    named_shapes,
)
from tfn_models.backbones import BACKBONES, build_backbone
from tfn_models.backbones.checkpoints.inference import (
    canonical,
    config_differences,
    infer_config,
)
from tfn_models.backbones.i3d_inception import I3D_INCEPTION, I3dInceptionConfig
from tfn_models.backbones.i3d_resnet import I3dResNetConfig
from tfn_models.backbones.interface import BackboneConfig
from tfn_models.backbones.slowfast import SLOWFAST_TINY, SlowFastConfig

ODD = st.sampled_from([1, 3, 5, 7])
SMALL_NUMBER = st.integers(1, 3)
FOUR_DEPTHS = st.tuples(*[SMALL_NUMBER] * 4)


def shapes_of(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build_backbone(config).state_dict()
    return {name: tuple(state[name].shape) for name in state if not name.endswith("tracked")}


@pytest.mark.parametrize(
    ("architecture", "network"),
    [
        ("slowfast_r50", SLOWFAST_R50),
        ("slowfast_r101", SLOWFAST_R101),
        ("slowfast_r101_50_50", SLOWFAST_R101_50_50),
        ("i3d_r50", I3D_R50),
    ],
)
def test_published_networks(architecture: str, network: Network) -> None:
    """The shapes are written out by the rule, not taken from our networks."""
    assert infer_config(named_shapes("own", network)) == BACKBONES[architecture]


@settings(max_examples=25, deadline=None)
@given(
    config=st.builds(
        SlowFastConfig,
        num_classes=st.integers(1, 9),
        depths=FOUR_DEPTHS,
        temporal_depths=st.none() | st.tuples(*[st.integers(0, 4)] * 4),
        slow_channels=st.sampled_from([8, 16]),
        channel_ratio=st.sampled_from([1, 2, 4]),
        expansion=SMALL_NUMBER,
        stem_kernel_pixels=ODD,
        fusion_ratio=SMALL_NUMBER,
        fusion_kernel_frames=ODD,
        fusion_norm=st.booleans(),
        frame_ratio=st.sampled_from([2, 4, 8]),
        fusion_relu=st.booleans(),
        slow_sampling=st.sampled_from(["stride", "linspace"]),
        dropout=st.sampled_from([0.0, 0.5]),
    )
)
def test_any_slowfast_is_found_again(config: SlowFastConfig) -> None:
    assert infer_config(shapes_of(config), unseen=config) == canonical(config)
    found = infer_config(shapes_of(config), unseen=I3D_INCEPTION)
    assert isinstance(found, SlowFastConfig)
    assert (found.frame_ratio, found.slow_sampling) == (4, "linspace")


@settings(max_examples=25, deadline=None)
@given(
    config=st.builds(
        I3dResNetConfig,
        num_classes=st.integers(1, 9),
        depths=FOUR_DEPTHS,
        temporal_kernels=st.tuples(*[st.lists(ODD, min_size=1, max_size=3).map(tuple)] * 4),
        channels=st.sampled_from([4, 8]),
        expansion=SMALL_NUMBER,
        stem_kernel_frames=ODD,
        stem_kernel_pixels=ODD,
        stem_stride_frames=SMALL_NUMBER,
        frame_stride=SMALL_NUMBER,
        pooled_frames=SMALL_NUMBER,
    )
)
def test_any_i3d_resnet_is_found_again(config: I3dResNetConfig) -> None:
    found = infer_config(shapes_of(config), unseen=config)
    assert found == canonical(config)
    assert config_differences(config, found) == []
    assert shapes_of(found) == shapes_of(config)


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_inceptions(divisor: int) -> None:
    config = I3dInceptionConfig(channel_divisor=divisor, num_classes=3, frame_stride=2)
    assert infer_config(shapes_of(config), unseen=config) == config


def test_a_kernel_pattern_is_the_shortest() -> None:
    """3, 1, 3 is (3, 1) repeated; a stage of one block has a pattern of one."""
    kernels = ((3, 1, 3, 1), (1, 3), (3, 3, 1), (5,))
    config = I3dResNetConfig(depths=(3, 1, 2, 4), temporal_kernels=kernels)
    found = canonical(config)
    assert isinstance(found, I3dResNetConfig)
    assert found.temporal_kernels == ((3, 1), (1,), (3,), (5,))


def test_temporal_depths_that_say_nothing() -> None:
    tiny = replace(SLOWFAST_TINY, temporal_depths=(9, 1, 1, 2))
    assert canonical(tiny) == SLOWFAST_TINY
    assert config_differences(tiny, SLOWFAST_TINY) == []


def test_what_differs_is_said() -> None:
    r50, r101 = BACKBONES["slowfast_r50"], BACKBONES["slowfast_r101"]
    assert config_differences(r101, replace(r50, num_classes=9)) == [
        "depths is (3, 4, 6, 3), asked for is (3, 4, 23, 3)",
        "fusion_kernel_frames is 7, asked for is 5",
    ]
    assert config_differences(r101, I3D_INCEPTION) == [
        "it is a I3dInception, asked for is a SlowFast"
    ]


def changed(**shapes: Any) -> dict[str, tuple[int, ...]]:
    """The small network with some shapes replaced, or taken away by None."""
    named = named_shapes("own", SMALL)
    named |= {name.replace("__", "."): shape for name, shape in shapes.items()}
    return {name: shape for name, shape in named.items() if shape is not None}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"slow_stem__conv__weight": None}, "no stem of a SlowFast or an I3D"),
        ({"fast_stem__conv__weight": None}, "fast_stem.conv.weight is missing"),
        ({"fast_stem__conv__weight": (3, 3, 5, 7, 7)}, "multiple of the fast one's, got 8 and 3"),
        ({"slow_stem__conv__weight": (8, 3, 7, 7)}, "must have 5 axes, none empty"),
        ({"fast_stem__conv__weight": (0, 3, 5, 7, 7)}, r"got \[0, 3, 5, 7, 7\]"),
        ({"slow_stages__0__2__expand__norm__bias": (1,)}, r"slow_stages\.0 must hold blocks .* 2"),
        ({"fast_stages__1__1__expand__norm__bias": (1,)}, r"slow one and \(1, 2, 2, 1\)"),
        ({"fusions__0__conv__weight": (4, 2, 4, 1, 1)}, "fusion_kernel_frames must be odd"),
    ],
)
def test_no_network_of_ours(shapes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infer_config(changed(**shapes))


def test_a_slow_r101_with_a_fast_r50() -> None:
    """As mmaction2 publishes one."""
    both, short = named_shapes("own", SLOWFAST_R101), named_shapes("own", SLOWFAST_R50)
    shapes = {name: both[name] for name in both if not name.startswith("fast_")} | {
        name: short[name] for name in short if name.startswith("fast_")
    }
    with pytest.raises(ValueError, match=r"got \(3, 4, 23, 3\) in the slow .* \(3, 4, 6, 3\)"):
        infer_config(shapes)
