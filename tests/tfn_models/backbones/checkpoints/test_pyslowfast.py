"""PySlowFast's names lead to ours; its detectors' Non-local blocks are refused."""

import pytest
import torch

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    SLOWFAST_R50,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    SMALL,
    Network,
    check_every_name,
    made_up,
    named_shapes,
    published_shapes,
    with_counters,
)
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.reading import read_names

PUBLISHED = {
    "pysf_SLOWFAST_8x8_R50": SLOWFAST_R50,
    "pysf_SLOWFAST_8x8_R101_50_50": SLOWFAST_R101_50_50,
    "pysf_SLOWFAST_8x8_R101_101_101": SLOWFAST_R101,
    "pysf_I3D_8x8_R50": I3D_R50,
}
NON_LOCAL = ("conv_theta", "conv_phi", "conv_g", "conv_out", "bn")


@pytest.mark.parametrize("network", [SLOWFAST_R101_50_50, I3D_R50], ids=["slowfast", "i3d"])
def test_every_name(network: Network) -> None:
    check_every_name("pyslowfast", network)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rule_gives_the_published_names(name: str) -> None:
    expected = with_counters(named_shapes("pyslowfast", PUBLISHED[name]))
    assert published_shapes(name) == expected


def test_non_local_blocks_are_part_of_the_features() -> None:
    """An AVA detector has them in res4: without them, the backbone would be another one."""
    weights = made_up("pyslowfast", SMALL)
    for part in NON_LOCAL:
        weights[f"s4.pathway0_nonlocal1.{part}.weight"] = torch.ones(1)
    with pytest.raises(
        ValueError, match=r"5 tensors are no part .*others: s4\.pathway0_nonlocal1\.conv_theta"
    ):
        read_names(weights)


def test_a_published_detector_is_refused() -> None:
    shapes = published_shapes("pysf_AVA_R101_50_50")
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with pytest.raises(ValueError, match="36 tensors are no part .*nonlocal6"):
        read_names(weights)


@pytest.mark.parametrize(
    "name",
    [
        "s1.pathway2_stem.conv.weight",
        "s6.pathway0_res0.branch1.weight",
        "s5_fuse.bn.weight",
        "s2.pathway0_res0.branch2.d.weight",
        "s2.pathway0_res0.branch2.a_relu.weight",
        "head.projection.scale",
        "conv1_w",
    ],
)
def test_unknown_names(name: str) -> None:
    assert SCHEMES["pyslowfast"].translate(name) is None
