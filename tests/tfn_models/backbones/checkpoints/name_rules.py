"""Each program's names by rule, written out as loops: what its network's modules are called.

The rules are those of the key lists in `tests/data/golden/checkpoint_keys.json.gz`: the names and
shapes of ten networks of pytorchvideo, PySlowFast and caffe2 (without shapes), which each scheme's
test compares one by one. mmaction2's rule follows its modules' code.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.tfn_models.backbones.golden import FOLDER
from tfn_models.backbones.checkpoints import SCHEMES

NORM = ("weight", "bias", "running_mean", "running_var")
LETTERS = {"shortcut": "1", "temporal": "a", "spatial": "b", "expand": "c"}


@dataclass(frozen=True)
class Network:
    """A SlowFast, or an I3D ResNet where `fast_kernels` is None; the defaults are SlowFast R50."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    slow_kernels: tuple[tuple[int, ...], ...] = ((1,), (1,), (3,), (3,))
    """Frames of each stage's temporal convolutions, repeated; 1 from block `temporal_depths` on."""
    fast_kernels: tuple[tuple[int, ...], ...] | None = ((3,), (3,), (3,), (3,))
    temporal_depths: tuple[int, ...] = (99, 99, 99, 99)
    stem_frames: int = 1
    slow: int = 64
    fast: int = 8
    fusion_frames: int = 7
    fusion_norm: bool = True
    num_classes: int = 400


R101: dict[str, Any] = {"depths": (3, 4, 23, 3), "fusion_frames": 5}
SLOWFAST_R50 = Network()
SLOWFAST_R101 = Network(**R101)
SLOWFAST_R101_50_50 = Network(**R101, temporal_depths=(3, 4, 6, 3))
I3D_R50 = Network(slow_kernels=((3,), (3, 1), (3, 1), (1, 3)), fast_kernels=None, stem_frames=5)
SMALL = Network(depths=(1, 1, 2, 1), slow=8, fast=2, num_classes=5)
SMALL_I3D = replace(I3D_R50, depths=(1, 2, 1, 2), slow=8, num_classes=5)


@dataclass(frozen=True)
class Layer:
    """A convolution and its norm: where it stands, and the convolution's shape."""

    kind: str
    pathway: str
    stage: int
    block: int
    part: str
    shape: tuple[int, ...]
    norm: bool = True


def layers(network: Network) -> Iterator[Layer]:
    """All convolutions of a network, in no special order."""
    stem = (network.slow, 3, network.stem_frames, 7, 7)
    yield Layer("stem", "slow", 0, 0, "", stem)
    yield from _stages(network, "slow", network.slow, network.slow_kernels)
    if network.fast_kernels is None:
        return
    yield Layer("stem", "fast", 0, 0, "", (network.fast, 3, 5, 7, 7))
    yield from _stages(network, "fast", network.fast, network.fast_kernels)
    for stage in range(4):
        width = network.fast if stage == 0 else network.fast * 4 * 2 ** (stage - 1)
        shape = (2 * width, width, network.fusion_frames, 1, 1)
        yield Layer("fusion", "fast", stage, 0, "", shape, network.fusion_norm)


def _stages(
    network: Network, pathway: str, width: int, kernels: tuple[tuple[int, ...], ...]
) -> Iterator[Layer]:
    incoming = width
    for stage in range(4):
        inner, outgoing = width * 2**stage, width * 4 * 2**stage
        lateral = 0
        if pathway == "slow" and network.fast_kernels is not None:
            lateral = 2 * (network.fast if stage == 0 else network.fast * 4 * 2 ** (stage - 1))
        for block in range(network.depths[stage]):
            entering = incoming + lateral if block == 0 else outgoing
            frames = kernels[stage][block % len(kernels[stage])]
            if block >= network.temporal_depths[stage]:
                frames = 1
            shapes = {
                "temporal": (inner, entering, frames, 1, 1),
                "spatial": (inner, inner, 1, 3, 3),
                "expand": (outgoing, inner, 1, 1, 1),
            }
            if block == 0:
                shapes["shortcut"] = (outgoing, entering, 1, 1, 1)
            for part, shape in shapes.items():
                yield Layer("block", pathway, stage, block, part, shape)
        incoming = outgoing


def own(layer: Layer, network: Network) -> tuple[str, str]:
    """Our names of a layer's convolution and norm."""
    start = f"{layer.pathway}_" if network.fast_kernels is not None else ""
    if layer.kind == "fusion":
        place = f"fusions.{layer.stage}"
    elif layer.kind == "stem":
        place = f"{start}stem"
    else:
        place = f"{start}stages.{layer.stage}.{layer.block}.{layer.part}"
    return f"{place}.conv", f"{place}.norm"


def pytorchvideo(layer: Layer, network: Network) -> tuple[str, str]:
    """pytorchvideo's; the I3D has its pooling over time as blocks.2."""
    number = {"slow": 0, "fast": 1}[layer.pathway]
    two = network.fast_kernels is not None
    middle = f"multipathway_blocks.{number}." if two else ""
    if layer.kind == "fusion":
        start = f"blocks.{layer.stage}.multipathway_fusion"
        return f"{start}.conv_fast_to_slow", f"{start}.norm"
    if layer.kind == "stem":
        return f"blocks.0.{middle}conv", f"blocks.0.{middle}norm"
    place = layer.stage + 1 if two or layer.stage == 0 else layer.stage + 2
    start = f"blocks.{place}.{middle}res_blocks.{layer.block}"
    if layer.part == "shortcut":
        return f"{start}.branch1_conv", f"{start}.branch1_norm"
    letter = LETTERS[layer.part]
    return f"{start}.branch2.conv_{letter}", f"{start}.branch2.norm_{letter}"


def pyslowfast(layer: Layer, network: Network) -> tuple[str, str]:
    """PySlowFast's: stages count from s2, lateral connections from s1."""
    number = {"slow": 0, "fast": 1}[layer.pathway]
    if layer.kind == "fusion":
        return f"s{layer.stage + 1}_fuse.conv_f2s", f"s{layer.stage + 1}_fuse.bn"
    if layer.kind == "stem":
        return f"s1.pathway{number}_stem.conv", f"s1.pathway{number}_stem.bn"
    start = f"s{layer.stage + 2}.pathway{number}_res{layer.block}"
    if layer.part == "shortcut":
        return f"{start}.branch1", f"{start}.branch1_bn"
    letter = LETTERS[layer.part]
    return f"{start}.branch2.{letter}", f"{start}.branch2.{letter}_bn"


def caffe2(layer: Layer, network: Network) -> tuple[str, str]:
    """Caffe2's: a lateral connection is called after the last block before it."""
    start = "t_" if layer.pathway == "fast" else ""
    if layer.kind == "fusion":
        last = network.depths[layer.stage - 1] - 1
        place = f"t_res{layer.stage + 1}_{last}_branch2c_bn_subsample"
        place = "t_pool1_subsample" if layer.stage == 0 else place
        return place, f"{place}_bn"
    if layer.kind == "stem":
        return f"{start}conv1", f"{start}res_conv1_bn"
    part = {"1": "1"}.get(LETTERS[layer.part], f"2{LETTERS[layer.part]}")
    place = f"{start}res{layer.stage + 2}_{layer.block}_branch{part}"
    return place, f"{place}_bn"


def mmaction2(layer: Layer, network: Network) -> tuple[str, str]:
    """mmaction2's: each convolution is a module with `conv` and `bn`."""
    start = f"backbone.{layer.pathway}_path." if network.fast_kernels is not None else "backbone."
    if layer.kind == "fusion":
        stage = f"layer{layer.stage}" if layer.stage else "conv1"
        place = f"backbone.slow_path.{stage}_lateral"
    elif layer.kind == "stem":
        place = f"{start}conv1"
    else:
        module = {"shortcut": "downsample", "temporal": "conv1", "spatial": "conv2"}
        name = module.get(layer.part, "conv3")
        place = f"{start}layer{layer.stage + 1}.{layer.block}.{name}"
    return f"{place}.conv", f"{place}.bn"


RULES = {
    "own": (own, "projection"),
    "pytorchvideo": (pytorchvideo, "blocks.6.proj"),
    "pyslowfast": (pyslowfast, "head.projection"),
    "caffe2": (caffe2, "pred"),
    "mmaction2": (mmaction2, "cls_head.fc_cls"),
}


def named_shapes(scheme: str, network: Network) -> dict[str, tuple[int, ...]]:
    """A scheme's name of each tensor of a network, in the order of our own -> its shape."""
    rule, projection = RULES[scheme]
    named: dict[str, tuple[int, ...]] = {}
    for layer in layers(network):
        conv, norm = rule(layer, network)
        named[f"{conv}.weight"] = layer.shape
        if layer.norm:
            named |= {f"{norm}.{tensor}": layer.shape[:1] for tensor in NORM}
    features = 32 * (network.slow + (0 if network.fast_kernels is None else network.fast))
    named[f"{projection}.weight"] = (network.num_classes, features)
    named[f"{projection}.bias"] = (network.num_classes,)
    return {_caffe2_ending(name): named[name] for name in named} if scheme == "caffe2" else named


def with_counters(named: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The same with the counters that torch keeps with each norm."""
    counters = {
        name.replace("running_mean", "num_batches_tracked"): ()
        for name in named
        if name.endswith("running_mean")
    }
    return named | counters


def made_up(scheme: str, network: Network) -> dict[str, Tensor]:
    """Random weights under a scheme's names: the same ones, in our order, for every scheme."""
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for name, shape in named_shapes(scheme, network).items():
        values = torch.randn(shape, generator=generator)
        if name.endswith(("running_var", "_riv")):
            values = 1 + 0.5 * values.tanh()
        elif len(shape) > 1:
            values *= (2 / values[0].numel()) ** 0.5
        weights[name] = values
    return weights


def _caffe2_ending(name: str) -> str:
    place, _, tensor = name.rpartition(".")
    if place.endswith("_bn"):
        return f"{place}_{dict(zip(NORM, ('s', 'b', 'rm', 'riv'), strict=True))[tensor]}"
    return f"{place}_{tensor[0]}"


def check_every_name(scheme: str, network: Network) -> None:
    """Each of their names must lead to our name of the same tensor, and to a place of its own."""
    known = SCHEMES[scheme]
    two = network.fast_kernels is not None
    theirs, ours = named_shapes(scheme, network), named_shapes("own", network)
    for name, expected in zip(theirs, ours, strict=True):
        translated = known.translate(name)
        assert translated is not None, name
        assert (translated if two else translated.removeprefix("slow_")) == expected
        assert known.bookkeeping.fullmatch(name) is None


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of one of the ten lists; of caffe2's, which has no shapes, all ()."""
    with gzip.open(FOLDER / "checkpoint_keys.json.gz") as file:
        entries = json.load(file)[name]
    return {key: tuple(shape or ()) for key, shape in entries}
