"""The backbone as a pipeline starts with it: fresh, or with the weights of a checkpoint.

A checkpoint may be this program's own, pytorchvideo's, PySlowFast's (of torch or caffe2),
mmaction2's, piergiaj's, or for an architecture of torchvision, torchvision's. Its network must be
exactly the one that the spec names: whatever differs is said before anything expensive starts.
Of this program's own weights, what no tensor shows (the normalisation, which frames are read) is
in the `backbone.json` beside them, and must be what the spec asks for, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tfn_jobs.backbones import (
    ARCHITECTURES,
    CONFIG_FILE,
    build_network,
    effective_config,
    network_differences,
    pick_architecture,
)
from tfn_jobs.console import say
from tfn_jobs.data_location import split_uri
from tfn_jobs.pipeline_spec import BackboneSpec
from tfn_jobs.torchvision_video import TorchvisionConfig, from_torchvision
from tfn_models.backbones.checkpoints import SCHEMES
from tfn_models.backbones.checkpoints.fitting import first_of, fit_problems, is_counter
from tfn_models.backbones.checkpoints.inference import config_differences
from tfn_models.backbones.checkpoints.own import OWN
from tfn_models.backbones.checkpoints.reading import (
    PROJECTION,
    copy_weights,
    read_names,
    without_wrapper,
)
from tfn_models.backbones.interface import Backbone, BackboneConfig
from tfn_platform.errors import DataError
from tfn_platform.foreign_weights import read_foreign_weights
from tfn_platform.store import Store


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


def initial_backbone(
    spec: BackboneSpec, *, num_classes: int | None, content_hash: str | None = None
) -> Backbone:
    """Build the network that a spec names and put its checkpoint's weights into it, if any.

    The checkpoint's projection stays where the number of classes is the same; else it is left out,
    with whatever else comes after the features, and said by name.

    Args:
        spec: names the architecture and the checkpoint.
        num_classes: of the projection; None takes the checkpoint's, or the architecture's.
        content_hash: what `file_hash` said of the checkpoint before; None for any content.

    Raises:
        DataError: the checkpoint cannot be read, has changed, or is not exactly of that
            architecture.
    """
    asked = pick_architecture(spec.architecture)
    if spec.checkpoint is None:
        return build_network(replace(asked, num_classes=num_classes or asked.num_classes))
    weights = read_initial_weights(spec, content_hash=content_hash)
    wanted = num_classes or weights.config.num_classes
    with_projection = weights.has_projection and wanted == weights.config.num_classes
    if not with_projection:
        say(
            f"{spec.checkpoint} ({weights.source} names): a new projection for {wanted} classes; "
            f"left out: {', '.join(weights.head_names) or 'nothing'}"
        )
    model = build_network(replace(weights.config, num_classes=wanted))
    copy_weights(model, weights.state, with_projection=with_projection)
    return model


def read_initial_weights(spec: BackboneSpec, *, content_hash: str | None = None) -> InitialWeights:
    """Read a spec's checkpoint and make sure that it is of its architecture, before other work.

    Args:
        spec: names the architecture and a checkpoint.
        content_hash: what `file_hash` said of the checkpoint before; None for any content.

    Raises:
        DataError: it cannot be read, has changed, or is of another network; says what differs, and
            which architecture it is.
    """
    assert spec.checkpoint is not None
    asked = pick_architecture(spec.architecture)
    store, name = split_uri(spec.checkpoint)
    weights = read_foreign_weights(store, name, content_hash=content_hash)
    try:
        if isinstance(asked, TorchvisionConfig):
            found = _of_torchvision(asked, weights)
        else:
            found = _of_named(spec.architecture, asked, weights)
        if found.source == OWN.title:
            _check_own(spec, store)
    except ValueError as error:
        raise DataError(f"{spec.checkpoint}: {error}") from error
    return found


def _check_own(spec: BackboneSpec, store: Store) -> None:
    """Compare what a fine-tuning wrote beside its weights, if it still lies there."""
    if not store.exists(CONFIG_FILE):
        return
    architecture = pick_architecture(spec.architecture)
    asked = effective_config(architecture, mean=spec.mean, std=spec.std)
    differences = network_differences(asked, store.read_json(CONFIG_FILE))
    if differences:
        raise ValueError(
            f"by the {CONFIG_FILE} beside them, these weights were made for another network than "
            f"the spec asks for: {first_of(differences)}. Change the spec, or move the weights "
            "away from that file to use them as another network's"
        )


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
    weights = without_wrapper(weights)
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
    source = OWN.title if is_own else "torchvision's"
    return InitialWeights(source, config, state, head_names, has_projection=bool(head_names))
