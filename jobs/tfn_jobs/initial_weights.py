"""The backbone as a pipeline starts with it: fresh, or with the weights of a checkpoint.

A checkpoint may be this program's own, pytorchvideo's, PySlowFast's (of torch or caffe2),
mmaction2's, piergiaj's, or for an architecture of torchvision, torchvision's. Its network must be
exactly the one that the spec names: whatever differs is said before anything expensive starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tfn_jobs.backbones import ARCHITECTURES, build_network, pick_architecture
from tfn_jobs.console import say
from tfn_jobs.data_location import split_uri
from tfn_jobs.pipeline_spec import BackboneSpec
from tfn_jobs.torchvision_video import TorchvisionConfig, from_torchvision
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.fitting import first_of, fit_problems, is_counter
from tfn_models.backbones.checkpoints.inference import config_differences
from tfn_models.backbones.checkpoints.reading import PROJECTION, read_names
from tfn_models.backbones.interface import Backbone, BackboneConfig
from tfn_platform.errors import DataError
from tfn_platform.foreign_weights import read_foreign_weights


@dataclass(frozen=True)
class InitialWeights:
    """What a checkpoint gives the network that a spec names."""

    source: str
    """Whose names its tensors have."""
    config: BackboneConfig
    """The spec's architecture, with as many classes as the file's projection has."""
    state: Mapping[str, Tensor]
    """Tensors by our names, without counters."""
    head_names: tuple[str, ...]
    """The file's names of all that comes after the features."""
    has_projection: bool
    """Whether that is a projection like ours, and nothing else."""


def initial_backbone(spec: BackboneSpec, *, num_classes: int | None) -> Backbone:
    """Build the network that a spec names and put its checkpoint's weights into it, if any.

    The checkpoint's projection stays where the number of classes is the same; else it is left out,
    with whatever else comes after the features, and said by name.

    Args:
        spec: names the architecture and the checkpoint.
        num_classes: of the projection; None takes the checkpoint's, or the architecture's.

    Raises:
        DataError: the checkpoint cannot be read, or is not exactly of that architecture.
    """
    asked = pick_architecture(spec.architecture)
    if spec.checkpoint is None:
        return build_network(replace(asked, num_classes=num_classes or asked.num_classes))
    weights = read_initial_weights(spec.architecture, spec.checkpoint)
    wanted = num_classes or weights.config.num_classes
    with_projection = weights.has_projection and wanted == weights.config.num_classes
    if not with_projection:
        say(
            f"{spec.checkpoint} ({weights.source} names): a new projection for {wanted} classes; "
            f"left out: {', '.join(weights.head_names) or 'nothing'}"
        )
    model = build_network(replace(weights.config, num_classes=wanted))
    own = model.state_dict()
    for name, tensor in weights.state.items():
        if with_projection or name not in PROJECTION:
            own[name].copy_(tensor)
    return model


def read_initial_weights(architecture: str, checkpoint: str) -> InitialWeights:
    """Read a checkpoint and make sure that it is of an architecture, before any other work.

    Args:
        architecture: one of `ARCHITECTURES`.
        checkpoint: path or URI of the file.

    Raises:
        DataError: it cannot be read, or is of another network; says what differs, and which
            architecture it is.
    """
    asked = pick_architecture(architecture)
    weights = read_foreign_weights(*split_uri(checkpoint))
    try:
        if isinstance(asked, TorchvisionConfig):
            return _of_torchvision(asked, weights)
        return _of_named(architecture, asked, weights)
    except ValueError as error:
        raise DataError(f"{checkpoint}: {error}") from error


def _of_named(
    architecture: str, asked: BackboneConfig, weights: Mapping[str, Tensor]
) -> InitialWeights:
    found = read_names(weights, unseen=asked)
    source = SCHEMES[found.scheme].title
    differences = config_differences(asked, found.config)
    if differences:
        fitting = [
            name
            for name, config in ARCHITECTURES.items()
            if not isinstance(config, TorchvisionConfig)
            and not config_differences(config, read_names(weights, unseen=config).config)
        ]
        advice = f"architecture: {' or '.join(fitting)}" if fitting else "no architecture of ours"
        raise ValueError(
            f"the network of these weights, in {source} names, is not {architecture}: "
            f"{first_of(differences)}. What would fit: {advice}"
        )
    return InitialWeights(
        source,
        replace(asked, num_classes=found.config.num_classes),
        found.state,
        found.head_names,
        has_projection=found.has_projection and not found.left_out,
    )


def _of_torchvision(asked: TorchvisionConfig, weights: Mapping[str, Tensor]) -> InitialWeights:
    is_own = any(name.startswith("network.") for name in weights)
    renamed = dict(weights) if is_own else from_torchvision(asked, weights)
    state = {name: tensor for name, tensor in renamed.items() if not is_counter(name)}
    head = "projection." if is_own else f"{asked.head}."
    head_names = tuple(name for name in weights if name.startswith(head))
    bias = state.get("projection.bias")
    config = asked if bias is None or bias.ndim != 1 else replace(asked, num_classes=len(bias))
    with torch.device("meta"):
        expected = build_network(config).state_dict()
    if not head_names:
        expected = {name: place for name, place in expected.items() if name not in PROJECTION}
    problems = fit_problems(state, expected)
    if problems:
        raise ValueError(f"the weights are not {asked.builder}'s: {first_of(problems)}")
    source = "this program's own" if is_own else "torchvision's"
    return InitialWeights(source, config, state, head_names, has_projection=bool(head_names))
