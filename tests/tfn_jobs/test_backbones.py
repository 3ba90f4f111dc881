"""All backbones of a job spec: by name, with their own classes, and kept next to their weights."""

from dataclasses import replace

import pytest
import torch

from tfn_jobs.backbones import (
    ARCHITECTURES,
    CONFIG_FILE,
    build_network,
    clip_problem,
    effective_config,
    network_differences,
    pick_architecture,
    read_network_config,
    write_network_config,
)
from tfn_models.backbones import BACKBONES, SLOWFAST_R101
from tfn_models.backbones.i3d_resnet import I3D_R50
from tfn_platform.stages import Stage
from tfn_platform.store import Store


def test_our_own_and_those_of_torchvision_are_there() -> None:
    assert ARCHITECTURES.keys() > BACKBONES.keys()
    assert {"r3d_18", "s3d", "mvit_v2_s", "swin3d_b"} < ARCHITECTURES.keys()
    assert pick_architecture("slowfast_r101") is SLOWFAST_R101
    assert pick_architecture("r3d_18").feature_dim == 512


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="got 'resnet'") as error:
        pick_architecture("resnet")
    assert all(name in str(error.value) for name in ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_can_be_built_for_any_classes(name: str) -> None:
    with torch.device("meta"):
        config = ARCHITECTURES[name]
        published, ours = build_network(config), build_network(replace(config, num_classes=7))
    assert (published.projection.out_features, ours.projection.out_features) == (400, 7)
    assert published.config == ARCHITECTURES[name]
    assert ours.feature_dim == config.feature_dim


@pytest.mark.parametrize("name", ["slowfast_tiny", "r3d_18"])
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        config = replace(ARCHITECTURES[name], num_classes=4)
        weights.append(build_network(config).state_dict())
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_convolutions_are_laid_out_as_the_clips_are() -> None:
    model = build_network(ARCHITECTURES["mc3_18"])
    weight = model.get_parameter("network.layer1.0.conv1.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_config_is_read_back_as_it_was(store: Store, name: str) -> None:
    folder = Stage("finetune", {}).folder(store)
    config = replace(ARCHITECTURES[name], num_classes=3, mean=(0.1, 0.2, 0.3), dropout=0.25)
    write_network_config(folder, config)
    assert read_network_config(folder, name) == config


def test_a_config_that_a_checkpoint_changed_is_read_back_as_it_was(store: Store) -> None:
    folder = Stage("finetune", {}).folder(store)
    kernels = ((1,), (3, 1), (3,), (1, 3, 3))
    config = replace(I3D_R50, temporal_kernels=kernels, stem_stride_frames=4, frame_stride=1)
    write_network_config(folder, config)
    read = read_network_config(folder, "i3d_r50")
    assert read == config and hash(read) == hash(config)
    with torch.device("meta"):
        assert build_network(read).config == config


def test_what_tells_a_written_config_from_another(store: Store) -> None:
    asked = ARCHITECTURES["i3d_r50"]
    folder = Stage("finetune", {}).folder(store)
    changed = replace(asked, num_classes=3, mean=(0.5, 0.5, 0.5), frame_stride=2)  # type: ignore[call-arg]
    write_network_config(folder, changed)
    written = store.read_json(folder.file(CONFIG_FILE))
    assert network_differences(changed, written) == []
    assert network_differences(asked, written) == [
        "mean is (0.5, 0.5, 0.5), asked for is (0.45, 0.45, 0.45)",
        "frame_stride is 2, asked for is 4",
    ]
    assert network_differences(SLOWFAST_R101, written) == ["it describes no SlowFast"]
    assert network_differences(asked, {"std": [0, 0, 0]}) == ["it describes no I3dResNet"]


def test_normalisation_is_the_specs_where_it_names_one() -> None:
    config = pick_architecture("i3d_inception")
    assert effective_config(config, mean=None, std=None) == config
    changed = effective_config(config, mean=(0.0, 0.0, 0.0), std=None)
    assert (changed.mean, changed.std) == ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "num_frames", "short_side", "square", "problem"),
    [
        ("slowfast_r101", 32, 256, False, None),
        ("slowfast_r101", 30, 256, False, "clips must hold a multiple of frame_ratio=4 frames"),
        ("i3d_r50", 4, 256, False, "clips must hold at least 5 frames"),
        ("i3d_inception", 2, 16, True, None),
        ("s3d", 32, 16, True, "clips must be at least 17 pixels"),
        ("mvit_v2_s", 32, 224, True, None),
        ("mvit_v2_s", 32, 224, False, "clips must be exactly 224 pixels high and wide"),
        ("swin3d_t", 31, 200, False, None),
    ],
)
def test_clips_that_a_backbone_cannot_read(
    name: str, num_frames: int, short_side: int, square: bool, problem: str | None
) -> None:
    told = clip_problem(name, num_frames=num_frames, short_side=short_side, square=square)
    assert told is None if problem is None else told and told.startswith(problem)
