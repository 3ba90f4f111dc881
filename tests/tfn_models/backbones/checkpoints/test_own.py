"""What this program writes it also reads, whichever the network."""

import pytest
import torch

from tfn_models.backbones import BACKBONES, build_backbone
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.reading import read_names


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_of_ours(name: str) -> None:
    with torch.device("meta"):
        state = build_backbone(BACKBONES[name]).state_dict()
    checkpoint = read_names(state, unseen=BACKBONES[name])
    assert checkpoint.scheme == "own"
    assert checkpoint.config == BACKBONES[name]
    assert all(checkpoint.their_names[name] == name for name in checkpoint.state)


def test_weights_of_a_smaller_net_are_themselves() -> None:
    config = BACKBONES["slowfast_tiny"]
    state = build_backbone(config).state_dict()
    found = read_names(state, unseen=config).state
    assert found.keys() == {name for name in state if not name.endswith("tracked")}
    assert all(found[name] is state[name] for name in found)


@pytest.mark.parametrize(
    "name",
    [
        "stem.weight",
        "slow_stages.0.temporal.conv.weight",
        "fusions.conv.weight",
        "stages.0.0.temporal.act.weight",
        "projection.scale",
        "network.stem.0.weight",
    ],
)
def test_unknown_names(name: str) -> None:
    assert SCHEMES["own"].translate(name) is None
