"""SlowFast against features that pytorchvideo computed, its settings, and its training."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.tfn_models.backbones.golden import (
    FOLDER,
    TOLERANCE,
    golden_clips,
    golden_error,
    golden_weights,
    load_golden,
)
from tfn_models.backbones.slowfast import (
    SLOWFAST_R50,
    SLOWFAST_R50_MMACTION2,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    SLOWFAST_R101_MMACTION2,
    SLOWFAST_TINY,
    SlowFast,
    SlowFastConfig,
    build_slowfast,
)

SMALL = SlowFastConfig(num_classes=3, depths=(1, 2, 1, 1), slow_channels=8, channel_ratio=4)


def build(config: SlowFastConfig, seed: int = 0) -> SlowFast:
    torch.manual_seed(seed)
    return build_slowfast(config)


@pytest.mark.parametrize(
    ("name", "config"), [("slowfast_r50", SLOWFAST_R50), ("slowfast_r101", SLOWFAST_R101)]
)
def test_features_are_those_of_pytorchvideo(name: str, config: SlowFastConfig) -> None:
    """R50 with a fusion kernel of 7, R101 with 5; both ways to choose the slow frames."""
    weights = golden_weights(name)
    samplings: list[tuple[Any, str]] = [("stride", ""), ("linspace", "_linspace")]
    for sampling, suffix in samplings:
        with torch.device("meta"):
            model = build_slowfast(replace(config, slow_sampling=sampling))
        model.to_empty(device="cpu")
        load_golden(model, weights)
        clips = golden_clips(name, model)
        assert golden_error(name, model, clips, suffix=suffix) < TOLERANCE, sampling


@pytest.mark.parametrize(
    ("config", "sampling"),
    [
        (SLOWFAST_R50, "linspace"),
        (SLOWFAST_R101, "linspace"),
        (SLOWFAST_R101_50_50, "linspace"),
        (SLOWFAST_R50_MMACTION2, "stride"),
        (SLOWFAST_R101_MMACTION2, "stride"),
        (SLOWFAST_TINY, "stride"),
    ],
)
def test_slow_frames_are_those_that_the_weights_were_trained_with(
    config: SlowFastConfig, sampling: str
) -> None:
    """PySlowFast's and pytorchvideo's were once fed every fourth frame: features 2 to 3 % off."""
    assert config.slow_sampling == sampling


def test_two_samplings_differ_on_the_golden_frames() -> None:
    """Else the comparison above could not tell them apart."""
    golden = np.load(FOLDER / "slowfast_r50.npz")
    difference = np.abs(golden["feature"] - golden["feature_linspace"]).max()
    assert difference / np.abs(golden["feature"]).max() > 1e-2


@pytest.mark.parametrize(
    "config", [SLOWFAST_R50, SLOWFAST_R101, SLOWFAST_R101_50_50, SLOWFAST_R101_MMACTION2]
)
def test_published_sizes_have_2304_features(config: SlowFastConfig) -> None:
    """2048 of the slow pathway and 256 of the fast one; the paper's 2034 is a misprint."""
    assert config.feature_dim == 2304


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"slow_sampling": "stride"},
        {"fusion_norm": False},
        {"fusion_norm": False, "fusion_relu": False},
        {"fusion_kernel_frames": 5},
        {"frame_ratio": 8},
        {"expansion": 1},
        {"temporal_depths": (0, 1, 1, 1)},
    ],
)
@pytest.mark.parametrize("num_frames", [16, 24])
def test_shapes(change: dict[str, Any], num_frames: int) -> None:
    model = build(replace(SMALL, **change)).eval()
    clips = torch.randn(2, 3, num_frames, 33, 40)
    assert model.forward_features(clips).shape == (2, model.feature_dim)
    assert model(clips).shape == (2, 3)


def temporal_kernels(model: SlowFast) -> dict[str, list[list[int]]]:
    return {
        pathway: [[block.temporal.conv.kernel_size[0] for block in stage] for stage in stages]
        for pathway, stages in (("slow", model.slow_stages), ("fast", model.fast_stages))
    }


def test_fifty_like_temporal_kernels() -> None:
    """R101_50_50: only the first six blocks of res4 convolve over time, in both pathways."""
    with torch.device("meta"):
        model = build_slowfast(SLOWFAST_R101_50_50)
    res4 = [3] * 6 + [1] * 17
    assert temporal_kernels(model) == {
        "slow": [[1] * 3, [1] * 4, res4, [3] * 3],
        "fast": [[3] * 3, [3] * 4, res4, [3] * 3],
    }


@pytest.mark.parametrize("fusion_norm", [False, True])
@pytest.mark.parametrize("fusion_relu", [False, True])
def test_a_lateral_connection_by_its_definition(fusion_norm: bool, fusion_relu: bool) -> None:
    """What enters res2's slow pathway after the slow stem's channels, at frame 1 and one pixel."""
    model = build(replace(SMALL, fusion_norm=fusion_norm, fusion_relu=fusion_relu)).eval()
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, inputs: seen.update({name: inputs[0]})

    model.slow_stages[0].register_forward_pre_hook(keep("slow"))
    model.fast_stages[0].register_forward_pre_hook(keep("fast"))
    model.forward_features(torch.randn(1, 3, 16, 32, 32))
    num_fast = SMALL.stem_channels[1]
    lateral = seen["slow"][0, -2 * num_fast :, 1, 2, 3]
    weight = model.fusions[0].conv.weight[:, :, :, 0, 0]
    for channel in range(2 * num_fast):
        total = torch.zeros(())
        for source in range(num_fast):
            for tap in range(7):
                frame = 4 * 1 + tap - 3
                total = total + weight[channel, source, tap] * seen["fast"][0, source, frame, 2, 3]
        total = total / (1 + 1e-5) ** 0.5 if fusion_norm else total
        total = total.clamp(min=0) if fusion_relu else total
        torch.testing.assert_close(lateral[channel], total)


def test_features_are_the_mean_over_time_and_space_of_res5() -> None:
    model = build(SMALL).eval()
    res5: list[torch.Tensor] = []
    for stages in (model.slow_stages, model.fast_stages):
        stages[-1].register_forward_hook(lambda _module, _input, output: res5.append(output))
    features = model.forward_features(torch.randn(2, 3, 16, 64, 64))
    pooled = torch.cat([x.flatten(2).sum(2) / x[0, 0].numel() for x in res5], dim=1)
    torch.testing.assert_close(features, pooled)


@pytest.mark.parametrize(
    ("sampling", "num_frames", "frames"),
    [
        ("stride", 32, [0, 4, 8, 12, 16, 20, 24, 28]),
        ("linspace", 32, [0, 4, 8, 13, 17, 22, 26, 31]),
        ("linspace", 4, [0]),
    ],
)
def test_slow_frames(sampling: Any, num_frames: int, frames: list[int]) -> None:
    model = build(replace(SMALL, slow_sampling=sampling))
    seen: list[torch.Tensor] = []
    model.slow_stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    clips = torch.arange(float(num_frames)).reshape(1, 1, -1, 1, 1).expand(2, 3, -1, 32, 32)
    model.eval().forward_features(clips)
    assert seen[0][0, 0, :, 0, 0].tolist() == frames


def test_same_seed_gives_the_same_weights_and_step() -> None:
    def step() -> torch.Tensor:
        model = build(SMALL)
        clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
        model(clips).square().sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        return torch.cat([grad.flatten() for grad in grads])

    assert torch.equal(step(), step())


def test_the_small_network_learns_a_direction_of_motion() -> None:
    """Two classes that no single frame can tell apart: a bar moving right or left."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 2
    start = torch.randint(0, 32, (16, 1), generator=generator)
    column = (start + (1 - 2 * labels)[:, None] * torch.arange(16) * 2) % 32
    bars = nn.functional.one_hot(column, 32).float()
    clips = bars[:, None, :, None, :].expand(-1, 3, -1, 32, -1)
    model = build(replace(SLOWFAST_TINY, num_classes=2, dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(clips), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion_ratio": 0}, "fusion_ratio must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"depths": (3, 4, 6)}, "four numbers"),
        ({"temporal_depths": (3, 4)}, "temporal_depths"),
        ({"slow_channels": 61}, "multiple of channel_ratio=4, got 61"),
        ({"fusion_kernel_frames": 4}, "fusion_kernel_frames must be odd, got 4"),
        ({"slow_sampling": "random"}, "'stride' or 'linspace', got 'random'"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("shape", [(3, 16, 32, 32), (1, 1, 16, 32, 32), (1, 3, 14, 32, 32)])
def test_wrong_clips_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clips must"):
        build(SMALL).forward_features(torch.zeros(shape))
