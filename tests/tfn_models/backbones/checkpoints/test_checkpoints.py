"""Whose names they are."""

import pytest

from tests.tfn_models.backbones.checkpoints.name_rules import (
    I3D_R50,
    RULES,
    SLOWFAST_R50,
    Network,
    named_shapes,
)
from tfn_models.backbones.checkpoints import SCHEMES, pick_scheme


@pytest.mark.parametrize("network", [SLOWFAST_R50, I3D_R50], ids=["slowfast", "i3d"])
@pytest.mark.parametrize("scheme", RULES)
def test_each_scheme_is_told_from_the_others(scheme: str, network: Network) -> None:
    names = named_shapes(scheme, network)
    assert pick_scheme(names) == scheme
    for other in SCHEMES.values():
        is_chosen = other is SCHEMES[scheme]
        assert all((other.translate(name) is not None) == is_chosen for name in names)


def test_one_foreign_name_does_not_hide_the_scheme() -> None:
    assert pick_scheme(["foreign", "s1.pathway0_stem.conv.weight", "other"]) == "pyslowfast"


def test_names_of_no_scheme() -> None:
    names = [f"encoder.{number}.weight" for number in range(9)]
    with pytest.raises(ValueError, match=r"own, pytorchvideo, .* got 9 others: 'encoder\.0"):
        pick_scheme(names)
    with pytest.raises(ValueError, match="got 0 others: none at all"):
        pick_scheme([])
