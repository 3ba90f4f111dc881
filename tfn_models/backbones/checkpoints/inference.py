"""Which network a set of tensors belongs to, from their names (ours) and shapes alone.

What no tensor shows stays as the given configuration has it: how frames are chosen and strided
(`slow_sampling`, `frame_ratio`, `frame_stride`, `stem_stride_frames`, `pooled_frames`), dropout,
and the normalisation of the input. A naming scheme then settles what its program has fixed.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TypeVar

from tfn_models.backbones.i3d_inception import I3dInceptionConfig
from tfn_models.backbones.i3d_resnet import I3dResNetConfig
from tfn_models.backbones.interface import BackboneConfig
from tfn_models.backbones.slowfast import SlowFastConfig

Shapes = Mapping[str, tuple[int, ...]]
FourNumbers = tuple[int, int, int, int]
Config = TypeVar("Config", bound=BackboneConfig)


def infer_config(shapes: Shapes, *, unseen: BackboneConfig | None = None) -> BackboneConfig:
    """Find the network and its configuration.

    Args:
        shapes: our name of each tensor -> its shape; counters left out.
        unseen: gives what no tensor shows, if it is of the same network; else its defaults do.

    Raises:
        ValueError: no network of ours has such tensors; says what is missing or does not fit.
    """
    if "slow_stem.conv.weight" in shapes:
        return _slowfast(shapes, _start(shapes, unseen, SlowFastConfig))
    if "stem.conv.weight" in shapes:
        return _i3d_resnet(shapes, _start(shapes, unseen, I3dResNetConfig))
    if "Conv3d_1a_7x7.conv3d.weight" in shapes:
        return _i3d_inception(shapes, _start(shapes, unseen, I3dInceptionConfig))
    raise ValueError("the tensors hold no stem of a SlowFast or an I3D: no whole backbone")


def config_differences(asked: BackboneConfig, found: BackboneConfig) -> list[str]:
    """What tells two networks apart, the number of classes aside; empty if nothing does.

    Returns:
        Sentences such as "depths is (3, 4, 6, 3), asked for is (3, 4, 23, 3)".
    """
    if type(asked) is not type(found):
        return [f"it is a {_title(found)}, asked for is a {_title(asked)}"]
    asked, found = canonical(asked), canonical(found)
    return [
        f"{field.name} is {getattr(found, field.name)}, asked for is {getattr(asked, field.name)}"
        for field in fields(asked)
        if field.name != "num_classes" and getattr(asked, field.name) != getattr(found, field.name)
    ]


def canonical(config: BackboneConfig) -> BackboneConfig:
    """The one way to write a configuration where several mean the same network."""
    if isinstance(config, SlowFastConfig) and config.temporal_depths is not None:
        pairs = zip(config.temporal_depths, config.depths, strict=True)
        limited = _four([min(temporal, depth) for temporal, depth in pairs])
        return replace(config, temporal_depths=None if limited == config.depths else limited)
    if isinstance(config, I3dResNetConfig):
        first, second, third, fourth = (
            _shortest_pattern([pattern[block % len(pattern)] for block in range(depth)])
            for pattern, depth in zip(config.temporal_kernels, config.depths, strict=True)
        )
        return replace(config, temporal_kernels=(first, second, third, fourth))
    return config


def _slowfast(shapes: Shapes, start: SlowFastConfig) -> SlowFastConfig:
    slow = _shape(shapes, "slow_stem.conv.weight")
    fast = _shape(shapes, "fast_stem.conv.weight")
    fusion = _shape(shapes, "fusions.0.conv.weight")
    depths, fast_depths = _depths(shapes, "slow_stages"), _depths(shapes, "fast_stages")
    if depths != fast_depths:
        raise ValueError(
            f"both pathways must have the same number of blocks, got {depths} in the slow one and "
            f"{fast_depths} in the fast one"
        )
    if slow[0] % fast[0]:
        raise ValueError(
            f"the slow stem's channels must be a multiple of the fast one's, got {slow[0]} and "
            f"{fast[0]}"
        )
    # All blocks of the fast pathway that may convolve over time are the first ones of a stage.
    temporal = [
        sum(kernel > 1 for kernel in _temporal_kernels(shapes, f"fast_stages.{stage}", depth))
        for stage, depth in enumerate(depths)
    ]
    config = replace(
        start,
        depths=depths,
        temporal_depths=_four(temporal),
        slow_channels=slow[0],
        channel_ratio=slow[0] // fast[0],
        expansion=_expansion(shapes, "slow_stages"),
        stem_kernel_pixels=slow[3],
        fusion_ratio=fusion[0] // fusion[1],
        fusion_kernel_frames=fusion[2],
        fusion_norm="fusions.0.norm.weight" in shapes,
    )
    return _typed(canonical(config), SlowFastConfig)


def _i3d_resnet(shapes: Shapes, start: I3dResNetConfig) -> I3dResNetConfig:
    stem = _shape(shapes, "stem.conv.weight")
    depths = _depths(shapes, "stages")
    kernels = [
        _temporal_kernels(shapes, f"stages.{stage}", depth) for stage, depth in enumerate(depths)
    ]
    first, second, third, fourth = (_shortest_pattern(pattern) for pattern in kernels)
    return replace(
        start,
        depths=depths,
        temporal_kernels=(first, second, third, fourth),
        channels=stem[0],
        expansion=_expansion(shapes, "stages"),
        stem_kernel_frames=stem[2],
        stem_kernel_pixels=stem[3],
    )


def _i3d_inception(shapes: Shapes, start: I3dInceptionConfig) -> I3dInceptionConfig:
    stem = _shape(shapes, "Conv3d_1a_7x7.conv3d.weight")
    if 64 % stem[0]:
        raise ValueError(f"Conv3d_1a_7x7 must have 64, 32, 16 or 8 channels, got {stem[0]}")
    return replace(start, channel_divisor=64 // stem[0])


def _shape(shapes: Shapes, name: str, *, num_axes: int = 5) -> tuple[int, ...]:
    """The shape of a tensor that must be there, with its axes; none of them is empty."""
    if name not in shapes:
        raise ValueError(f"{name} is missing, from which the network is found out")
    shape = tuple(shapes[name])
    if len(shape) != num_axes or min(shape) < 1:
        raise ValueError(f"{name} must have {num_axes} axes, none empty, got {list(shape)}")
    return shape


def _depths(shapes: Shapes, stages: str) -> FourNumbers:
    """Blocks of each of the four stages; a stage's are counted from 0 without a gap."""
    depths = []
    for stage in range(4):
        pattern = re.compile(rf"{stages}\.{stage}\.(\d+)\..+")
        blocks = {int(match[1]) for match in map(pattern.fullmatch, shapes) if match}
        if blocks != set(range(len(blocks))) or not blocks:
            found = ", ".join(map(str, sorted(blocks)[:5])) or "none"
            raise ValueError(f"{stages}.{stage} must hold blocks 0, 1, ..., got {found}")
        depths.append(len(blocks))
    return _four(depths)


def _temporal_kernels(shapes: Shapes, stage: str, depth: int) -> list[int]:
    names = [f"{stage}.{block}.temporal.conv.weight" for block in range(depth)]
    return [_shape(shapes, name)[2] for name in names]


def _expansion(shapes: Shapes, stages: str) -> int:
    out_channels, inner_channels = _shape(shapes, f"{stages}.0.0.expand.conv.weight")[:2]
    return max(1, out_channels // inner_channels)


def _shortest_pattern(kernels: list[int]) -> tuple[int, ...]:
    """The fewest first ones that give all when repeated: (3, 1) for 3, 1, 3."""

    def repeats(length: int) -> bool:
        return all(kernel == kernels[block % length] for block, kernel in enumerate(kernels))

    length = next(length for length in range(1, len(kernels) + 1) if repeats(length))
    return tuple(kernels[:length])


def _start(shapes: Shapes, unseen: BackboneConfig | None, kind: type[Config]) -> Config:
    """What is known beforehand, with the projection's number of classes if there is one."""
    start = unseen if isinstance(unseen, kind) else kind()
    if "projection.bias" not in shapes:
        return start
    return replace(start, num_classes=_shape(shapes, "projection.bias", num_axes=1)[0])


def _typed(config: BackboneConfig, kind: type[Config]) -> Config:
    assert isinstance(config, kind)
    return config


def _four(numbers: list[int]) -> FourNumbers:
    first, second, third, fourth = numbers
    return first, second, third, fourth


def _title(config: BackboneConfig) -> str:
    return type(config).__name__.removesuffix("Config")
