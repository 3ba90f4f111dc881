"""Whose names they are, and which architecture of ours a published file therefore is."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    RULES,
    SLOWFAST_R50,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    Network,
    named_shapes,
    published_shapes,
)
from tfn_models.backbones import BACKBONES, build_backbone
from tfn_models.backbones.checkpoints import SCHEMES, pick_scheme
from tfn_models.backbones.checkpoints.inference import config_differences
from tfn_models.backbones.checkpoints.reading import read_names
from tfn_models.backbones.i3d_inception import I3D_INCEPTION
from tfn_models.backbones.i3d_resnet import I3dResNetConfig

OF_PYSLOWFAST = {
    "slowfast_r50": SLOWFAST_R50,
    "slowfast_r101": SLOWFAST_R101,
    "slowfast_r101_50_50": SLOWFAST_R101_50_50,
    "i3d_r50": I3D_R50,
}
OF_MMACTION2 = {
    "slowfast_r50_mmaction2": replace(SLOWFAST_R50, fusion_norm=False),
    "slowfast_r101_mmaction2": replace(SLOWFAST_R50, fusion_norm=False, depths=(3, 4, 23, 3)),
    "i3d_r50_mmaction2": I3D_R50,
}
PUBLISHED = [
    *(
        (scheme, *entry)
        for scheme in ("pytorchvideo", "pyslowfast", "caffe2")
        for entry in OF_PYSLOWFAST.items()
    ),
    *(("mmaction2", *entry) for entry in OF_MMACTION2.items()),
]


@pytest.mark.parametrize("network", [SLOWFAST_R50, I3D_R50], ids=["slowfast", "i3d"])
@pytest.mark.parametrize("scheme", RULES)
def test_each_scheme_is_told_from_the_others(scheme: str, network: Network) -> None:
    names = named_shapes(scheme, network)
    assert pick_scheme(names) == scheme
    for other in SCHEMES.values():
        is_chosen = other is SCHEMES[scheme]
        assert all((other.translate(name) is not None) == is_chosen for name in names)


def fitting(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The architectures that a file with tensors of these shapes is accepted for."""
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return [
        name
        for name, asked in BACKBONES.items()
        if not config_differences(asked, read_names(weights, unseen=asked).config)
    ]


@pytest.mark.parametrize(("scheme", "architecture", "network"), PUBLISHED)
def test_a_published_file_is_one_architecture(
    scheme: str, architecture: str, network: Network
) -> None:
    """`i3d_r50_mmaction2` once took PySlowFast's files: what no tensor shows came from the spec."""
    assert fitting(named_shapes(scheme, network)) == [architecture]


def test_a_published_inception_is_one_architecture() -> None:
    with torch.device("meta"):
        state = build_backbone(I3D_INCEPTION).state_dict()
    names = {name: name.replace("projection.", "logits.conv3d.") for name in state}
    assert fitting({names[name]: tuple(state[name].shape) for name in state}) == ["i3d_inception"]


@pytest.mark.parametrize("scheme", ["pytorchvideo", "pyslowfast", "caffe2", "mmaction2"])
@pytest.mark.parametrize(
    ("stem_frames", "kernels", "pooled"), [(5, (3, 3, 3, 3), 2), (1, (1, 1, 3, 3), 1)]
)
def test_only_a_slow_resnet_keeps_its_frames(
    scheme: str, stem_frames: int, kernels: tuple[int, ...], pooled: int
) -> None:
    patterns = tuple((kernel,) for kernel in kernels)
    network = replace(I3D_R50, slow_kernels=patterns, stem_frames=stem_frames)
    shapes = named_shapes(scheme, network)
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = read_names(weights).config
    assert isinstance(config, I3dResNetConfig)
    assert config.pooled_frames == pooled


KEY_LISTS = {
    "ptv_i3d_r50": "i3d_r50",
    "ptv_slowfast_16x8_r101_50_50": "slowfast_r101_50_50",
    "ptv_slowfast_r101": "slowfast_r101",
    "ptv_slowfast_r50": "slowfast_r50",
    "pysf_I3D_8x8_R50": "i3d_r50",
    "pysf_SLOWFAST_8x8_R101_101_101": "slowfast_r101",
    "pysf_SLOWFAST_8x8_R101_50_50": "slowfast_r101_50_50",
    "pysf_SLOWFAST_8x8_R50": "slowfast_r50",
}


@pytest.mark.parametrize("name", KEY_LISTS)
def test_key_lists_are_one_architecture(name: str) -> None:
    """Not by our rule, but as these programs call and shape their tensors."""
    assert fitting(published_shapes(name)) == [KEY_LISTS[name]]


def test_one_foreign_name_does_not_hide_the_scheme() -> None:
    assert pick_scheme(["foreign", "s1.pathway0_stem.conv.weight", "other"]) == "pyslowfast"


def test_names_of_no_scheme() -> None:
    names = [f"encoder.{number}.weight" for number in range(9)]
    with pytest.raises(ValueError, match=r"own, pytorchvideo, .* got 9 others: 'encoder\.0"):
        pick_scheme(names)
    with pytest.raises(ValueError, match="got 0 others: none at all"):
        pick_scheme([])
