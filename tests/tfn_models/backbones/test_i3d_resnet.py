"""I3D-R50 against features that pytorchvideo computed, and its settings."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tfn_models.backbones.golden import (
    TOLERANCE,
    golden_clips,
    golden_error,
    golden_weights,
    load_golden,
)
from tfn_models.backbones.i3d_resnet import I3D_R50, I3dResNet, I3dResNetConfig, build_i3d_resnet

SMALL = I3dResNetConfig(num_classes=3, depths=(1, 2, 3, 2), channels=8, expansion=2)


def build(config: I3dResNetConfig) -> I3dResNet:
    torch.manual_seed(0)
    return build_i3d_resnet(config)


def test_features_are_those_of_pytorchvideo() -> None:
    model = build_i3d_resnet(I3D_R50)
    load_golden(model, golden_weights("i3d_r50"))
    assert I3D_R50.feature_dim == 2048
    assert golden_error("i3d_r50", model, golden_clips("i3d_r50", model)) < TOLERANCE


def test_patterns_of_temporal_kernels_repeat() -> None:
    with torch.device("meta"):
        model = build_i3d_resnet(I3D_R50)
    kernels = [[block.temporal.conv.kernel_size[0] for block in stage] for stage in model.stages]
    assert kernels == [[3, 3, 3], [3, 1, 3, 1], [3, 1, 3, 1, 3, 1], [1, 3, 1]]


def test_only_every_fourth_frame_is_read() -> None:
    model = build(SMALL).eval()
    clips = torch.randn(1, 3, 32, 32, 32)
    other = torch.randn(1, 3, 32, 32, 32)
    other[:, :, ::4] = clips[:, :, ::4]
    assert torch.equal(model.forward_features(clips), model.forward_features(other))
    other[:, :, 28] += 1
    assert not torch.equal(model.forward_features(clips), model.forward_features(other))


@pytest.mark.parametrize(
    ("change", "num_frames", "frames_of_stages"),
    [
        ({}, 32, [8, 4, 4, 4]),
        ({}, 5, [2, 1, 1, 1]),
        ({"frame_stride": 1}, 8, [8, 4, 4, 4]),
        ({"frame_stride": 1, "stem_stride_frames": 4}, 32, [8, 4, 4, 4]),
        ({"pooled_frames": 1}, 30, [8, 8, 8, 8]),
        ({"frame_stride": 1, "pooled_frames": 4}, 11, [11, 2, 2, 2]),
    ],
)
def test_frames_of_the_stages(
    change: dict[str, Any], num_frames: int, frames_of_stages: list[int]
) -> None:
    model = build(replace(SMALL, **change)).eval()
    seen: list[int] = []
    for number, stage in enumerate(model.stages):
        position = 1 if number == 0 else 0
        # What leaves res2, and what enters the others: the pooling lies between.
        stage.register_forward_hook(
            lambda _module, inputs, output, p=position: seen.append((inputs[0], output)[p].shape[2])
        )
    assert model(torch.randn(2, 3, num_frames, 33, 40)).shape == (2, 3)
    assert seen == frames_of_stages


def test_frame_pooling_takes_the_larger_of_two_neighbours() -> None:
    model = build(SMALL).eval()
    seen: list[torch.Tensor] = []
    model.stages[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model.stages[1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model.forward_features(torch.randn(1, 3, 20, 32, 32))
    before, after = seen
    assert (before.shape[2], after.shape[2]) == (5, 2)
    for frame in range(2):
        expected = torch.maximum(before[:, :, 2 * frame], before[:, :, 2 * frame + 1])
        assert torch.equal(after[:, :, frame], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_stride": 0}, "frame_stride must be at least 1, got 0"),
        ({"stem_stride_frames": 0}, "stem_stride_frames must be at least 1, got 0"),
        ({"depths": (1, 1, 0, 1)}, "depths must be four numbers of at least 1"),
        ({"temporal_kernels": ((3,), (3,), (3,))}, "four patterns of odd numbers"),
        ({"temporal_kernels": ((3,), (3,), (3,), ())}, "four patterns of odd numbers"),
        ({"temporal_kernels": ((3,), (2,), (3,), (3,))}, "four patterns of odd numbers"),
        ({"stem_kernel_frames": 4}, "stem_kernel_frames must be odd, got 4"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 frames, .* one in 4, got 4"):
        build(SMALL).forward_features(torch.zeros(1, 3, 4, 32, 32))
