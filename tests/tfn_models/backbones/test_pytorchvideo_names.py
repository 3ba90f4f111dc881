"""Our SlowFast against features that pytorchvideo 0.1.5 computed from the same made-up weights."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tfn_models.backbones.frames import normalize_frames
from tfn_models.backbones.pytorchvideo_names import from_pytorchvideo, load_pytorchvideo_weights
from tfn_models.backbones.slowfast import (
    SLOWFAST_R50,
    SLOWFAST_R101,
    SlowFast,
    SlowFastConfig,
    build_slowfast,
)

DATA = Path(__file__).parents[2] / "data"
SMALL = SlowFastConfig(num_classes=5, depths=(1, 1, 2, 1), slow_channels=8, channel_ratio=4)


def noise(count: int, seed: int) -> np.ndarray:
    """Integer hash of 0..count-1, in [-1, 1) as float64: the same on every platform."""
    h = np.arange(count, dtype=np.uint64)
    h = ((h + (seed * 0x9E3779B1) % 2**32) % 2**32).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h.astype(np.float64) / 2**31 - 1


def golden_weight(name: str, shape: list[int], position: int) -> Tensor:
    u = noise(int(np.prod(shape)), position)
    if len(shape) >= 2:
        value = u * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        value = 1 + 0.5 * u
    elif name.endswith(("running_mean", "bias")):
        value = 0.1 * u
    elif name.endswith("norm_c.weight"):
        value = 0.25 * (1 + 0.2 * u)
    else:
        value = 1 + 0.2 * u
    return torch.from_numpy(value.reshape(shape).astype(np.float32))


def golden_frames() -> np.ndarray:
    t, y, x, c = np.ogrid[:32, :64, :64, :3]
    speckle = np.floor((noise(32 * 64 * 64 * 3, 999983) + 1) * 32).reshape(32, 64, 64, 3)
    return ((7 * t + 3 * y + 5 * x + 40 * c + speckle.astype(np.int64)) % 256).astype(np.uint8)


def with_sampling(model: SlowFast, sampling: Literal["stride", "linspace"]) -> SlowFast:
    """The same weights behind the other choice of slow frames."""
    other = build_slowfast(replace(model.config, slow_sampling=sampling))
    other.load_state_dict(model.state_dict())
    return other.eval()


def check_against_golden(folder: Path, depth: str, config: SlowFastConfig) -> None:
    spec = json.loads((folder / f"slowfast_{depth}_spec.json").read_text())
    golden = np.load(folder / f"slowfast_{depth}_32x64x64.npz")
    frames = golden_frames()
    assert hashlib.sha256(frames.tobytes()).hexdigest() == str(golden["frames_sha256"])
    model = build_slowfast(config).eval()
    load_pytorchvideo_weights(
        model, {name: golden_weight(name, shape, i) for i, (name, shape) in enumerate(spec)}
    )
    clips = normalize_frames(torch.from_numpy(frames))[None]
    samplings: tuple[Literal["stride", "linspace"], ...] = ("stride", "linspace")
    for sampling in samplings:
        suffix = "" if sampling == "stride" else "_linspace"
        sampled = with_sampling(model, sampling)
        with torch.inference_mode():
            features = sampled.forward_features(clips)
            found = {"feature": features, "logits": sampled.projection(features)}
        for name, value in found.items():
            expected = golden[name + suffix]
            error = np.abs(value[0].double().numpy() - expected).max() / np.abs(expected).max()
            assert error < 1e-5, (name + suffix, error)


def test_r50_gives_the_features_of_pytorchvideo() -> None:
    check_against_golden(DATA, "r50", SLOWFAST_R50)


def test_r101_gives_the_features_of_pytorchvideo(shared_dir: Path) -> None:
    check_against_golden(shared_dir / "golden", "r101", SLOWFAST_R101)


def test_two_samplings_differ_on_the_golden_frames() -> None:
    """Else the comparison above could not tell them apart."""
    golden = np.load(DATA / "slowfast_r50_32x64x64.npz")
    difference = np.abs(golden["feature"] - golden["feature_linspace"]).max()
    assert difference / np.abs(golden["feature"]).max() > 1e-2


def pytorchvideo_weights(config: SlowFastConfig) -> dict[str, Tensor]:
    """Random weights under pytorchvideo's names, by turning the translation around."""
    own = build_slowfast(config).state_dict()
    spec = json.loads((DATA / "slowfast_r50_spec.json").read_text())
    ours_to_theirs = {from_pytorchvideo(name): name for name, _ in spec}
    return {
        ours_to_theirs[name]: torch.randn_like(tensor)
        for name, tensor in own.items()
        if name in ours_to_theirs
    }


def test_every_tensor_of_r50_has_one_place() -> None:
    spec = json.loads((DATA / "slowfast_r50_spec.json").read_text())
    ours = {from_pytorchvideo(name): tuple(shape) for name, shape in spec}
    assert len(ours) == len(spec)
    own = build_slowfast(SLOWFAST_R50).state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    assert ours == {name: tuple(own[name].shape) for name in own.keys() - counters}


@pytest.mark.parametrize(
    "name", ["blocks.7.proj.bias", "s1.pathway0_stem.conv.weight", "blocks.5.x", "", "projection"]
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a tensor of pytorchvideo"):
        from_pytorchvideo(name)


def test_loading_copies_every_tensor_and_ignores_counters() -> None:
    weights = pytorchvideo_weights(SMALL)
    weights["blocks.0.multipathway_blocks.0.norm.num_batches_tracked"] = torch.tensor(3)
    model = build_slowfast(SMALL)
    load_pytorchvideo_weights(model, weights)
    state = model.state_dict()
    for name, tensor in weights.items():
        if not name.endswith("tracked"):
            assert torch.equal(state[from_pytorchvideo(name)], tensor)


def test_loading_without_projection_keeps_our_own() -> None:
    weights = pytorchvideo_weights(SMALL)
    model = build_slowfast(replace(SMALL, num_classes=9))
    before = model.projection.weight.clone()
    with pytest.raises(ValueError, match="projection.weight is"):
        load_pytorchvideo_weights(model, weights)
    load_pytorchvideo_weights(model, weights, with_projection=False)
    assert torch.equal(model.projection.weight, before)
    name = "blocks.0.multipathway_blocks.1.conv.weight"
    assert torch.equal(model.fast_stem.conv.weight, weights[name])


def test_missing_and_left_over_tensors_are_refused_and_nothing_is_changed() -> None:
    model = build_slowfast(SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = pytorchvideo_weights(SMALL)
    removed = weights.pop("blocks.0.multipathway_blocks.1.conv.weight")
    with pytest.raises(ValueError, match="fast_stem.conv.weight is missing"):
        load_pytorchvideo_weights(model, weights)
    weights["blocks.0.multipathway_blocks.1.conv.weight"] = removed
    weights["blocks.1.multipathway_blocks.1.res_blocks.2.branch2.conv_a.weight"] = removed
    with pytest.raises(ValueError, match=r"fast_stages.0.2.temporal.conv.weight has no place"):
        load_pytorchvideo_weights(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
