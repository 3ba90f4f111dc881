"""All backbones that a job spec can name, and the one network that a pipeline made of one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from tfn_jobs.torchvision_video import TORCHVISION, TorchvisionConfig, build_torchvision
from tfn_models.backbones import BACKBONES, build_backbone
from tfn_models.backbones.checkpoints.inference import config_differences
from tfn_models.backbones.interface import Backbone, BackboneConfig
from tfn_platform.store import StageFolder

ARCHITECTURES: dict[str, BackboneConfig] = {**BACKBONES, **TORCHVISION}

CONFIG_FILE = "backbone.json"


def pick_architecture(name: str) -> BackboneConfig:
    """Look up a backbone by its name in a job spec.

    Raises:
        ValueError: there is no such backbone; the message lists those that exist.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"backbone must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name]


def build_network(config: BackboneConfig) -> Backbone:
    """Build the network that `config` describes, with weights from torch's global generator.

    Its convolutions are laid out channels-last, as are the clips that it gets.
    """
    if isinstance(config, TorchvisionConfig):
        return build_torchvision(config).to(memory_format=torch.channels_last_3d)
    return build_backbone(config)


def effective_config(
    config: BackboneConfig,
    *,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
) -> BackboneConfig:
    """The config with a job spec's normalisation, where that names one, in place of its own."""
    return dataclasses.replace(config, mean=mean or config.mean, std=std or config.std)


def write_network_config(folder: StageFolder, config: BackboneConfig) -> None:
    """Keep, next to a backbone's weights, all that is needed to build it and to feed it."""
    folder.store.write_json(folder.file(CONFIG_FILE), dataclasses.asdict(config))


def read_network_config(folder: StageFolder, name: str) -> BackboneConfig:
    """Read back the config of a network made from the architecture `name`."""
    fields = folder.store.read_json(folder.file(CONFIG_FILE))
    changes = {field: _tuples(value) for field, value in fields.items()}
    return dataclasses.replace(pick_architecture(name), **changes)


def network_differences(asked: BackboneConfig, fields: Mapping[str, Any]) -> list[str]:
    """What tells a config that `write_network_config` wrote from another one, but for the classes.

    Args:
        asked: the other one.
        fields: what the file holds.

    Returns:
        Sentences such as "mean is (0.5, 0.5, 0.5), asked for is (0.45, 0.45, 0.45)".
    """
    try:
        written = {name: _tuples(value) for name, value in dict(fields).items()}
        found = dataclasses.replace(asked, **written)
    except (TypeError, ValueError):
        return [f"it describes no {type(asked).__name__.removesuffix('Config')}"]
    return config_differences(asked, found)


def clip_problem(name: str, *, num_frames: int, short_side: int, square: bool) -> str | None:
    """What is wrong with the clips that a spec wants cut for a backbone; None if nothing is.

    Args:
        name: one of `ARCHITECTURES`.
        num_frames: frames a clip.
        short_side: pixels of the shorter side.
        square: whether frames are cut to a square; if not, they are taken to be 16:9.
    """
    width = short_side if square else round(short_side * 16 / 9)
    try:
        pick_architecture(name).check_clip(num_frames, height=short_side, width=width)
    except ValueError as error:
        return str(error)
    return None


def _tuples(value: Any) -> Any:
    """What JSON holds as lists."""
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
