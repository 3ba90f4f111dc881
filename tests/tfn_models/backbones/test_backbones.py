"""The table of backbones."""

import pytest

from tfn_models.backbones import BACKBONES, pick_backbone
from tfn_models.backbones.slowfast import SLOWFAST_R101


def test_a_backbone_is_picked_by_name() -> None:
    assert pick_backbone("slowfast_r101") is SLOWFAST_R101


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="got 'resnet'") as error:
        pick_backbone("resnet")
    assert all(name in str(error.value) for name in BACKBONES)
