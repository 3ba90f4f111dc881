"""Golden vectors: made-up weights and frames, and the features that other implementations give.

The features in `tests/data/golden/*.npz` were computed in fp64 with pytorchvideo 0.1.5 (SlowFast,
I3D-R50) and with a port of the authors' network (I3D Inception). Weights and frames come from an
integer hash, so nothing of them is stored but the order and the shapes (`*_layers.json`).
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfn_models.backbones.frames import normalize_frames
from tfn_models.backbones.interface import Backbone

FOLDER = Path(__file__).parents[2] / "data" / "golden"
TOLERANCE = 1e-5
"""Largest error, in units of the largest feature or logit."""


def noise(count: int, position: int) -> NDArray[np.float64]:
    """Integer hash of 0..count-1 and of a tensor's position, in [-1, 1)."""
    h = np.arange(count, dtype=np.uint32) + np.uint32(position * 0x9E3779B1 % 2**32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h.astype(np.float64) / 2**31 - 1


def golden_frames() -> NDArray[np.uint8]:
    """Frames [32, 64, 64, 3]."""
    t, y, x, c = np.ogrid[:32, :64, :64, :3]
    speckle = np.floor((noise(32 * 64 * 64 * 3, 999983) + 1) * 32).reshape(32, 64, 64, 3)
    return ((7 * t + 3 * y + 5 * x + 40 * c + speckle.astype(np.int64)) % 256).astype(np.uint8)


def golden_weights(name: str, *, norm: str = "norm", conv: str = "conv") -> dict[str, Tensor]:
    """All tensors of a network, in the order in which the reference holds them."""
    weights: dict[str, Tensor] = {}
    for layer, shape in json.loads((FOLDER / f"{name}_layers.json").read_text()):
        if layer == "projection":
            entries = [("projection.weight", shape), ("projection.bias", shape[:1])]
        else:
            parts = ("weight", "bias", "running_mean", "running_var")
            entries = [(f"{layer}.{conv}.weight", shape)]
            entries += [(f"{layer}.{norm}.{part}", shape[:1]) for part in parts]
        for tensor, size in entries:
            weights[tensor] = _weight(tensor, size, position=len(weights))
    return weights


def load_golden(model: Backbone, weights: dict[str, Tensor]) -> None:
    """Put the weights in; every tensor of the model must find one of its own shape."""
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    projection = weights["projection.weight"].flatten(1)
    model.load_state_dict({**counters, **weights, "projection.weight": projection})
    model.eval()


def golden_clips(name: str, model: Backbone, num_frames: int = 32) -> Tensor:
    """The first golden frames as a clip [1, 3, L, 64, 64], after a check that they are right."""
    frames = golden_frames()
    expected = str(np.load(FOLDER / f"{name}.npz")["frames_sha256"])
    assert hashlib.sha256(frames.tobytes()).hexdigest() == expected
    mean, std = model.config.mean, model.config.std
    return normalize_frames(torch.from_numpy(frames[:num_frames]), mean=mean, std=std)[None]


@torch.inference_mode()
def golden_error(name: str, model: Backbone, clips: Tensor, *, suffix: str = "") -> float:
    """Largest error of features and logits, in units of their largest."""
    golden = np.load(FOLDER / f"{name}.npz")
    features = model.forward_features(clips)
    found = {"feature": features, "logits": model.projection(features)}
    errors = []
    for key, value in found.items():
        expected = golden[key + suffix]
        difference = np.abs(value[0].double().numpy() - expected)
        errors.append(float(difference.max() / np.abs(expected).max()))
    return max(errors)


def _weight(name: str, shape: list[int], *, position: int) -> Tensor:
    u = noise(int(np.prod(shape)), position)
    if len(shape) >= 2:
        value = u * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        value = 1 + 0.5 * u
    elif name.endswith(("running_mean", "bias")):
        value = 0.1 * u
    elif name.endswith("expand.norm.weight"):
        value = 0.25 * (1 + 0.2 * u)
    else:
        value = 1 + 0.2 * u
    return torch.from_numpy(value.reshape(shape).astype(np.float32))
