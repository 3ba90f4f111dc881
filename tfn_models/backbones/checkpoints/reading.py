"""Read a checkpoint of any known naming scheme, strictly: every tensor must find its partner."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfn_models.backbones import build_backbone
from tfn_models.backbones.checkpoints import SCHEMES, pick_scheme
from tfn_models.backbones.checkpoints.fitting import first_of, fit_problems
from tfn_models.backbones.checkpoints.inference import config_differences, infer_config
from tfn_models.backbones.interface import Backbone, BackboneConfig
from tfn_models.backbones.slowfast import SlowFastConfig

PROJECTION = ("projection.weight", "projection.bias")


@dataclass(frozen=True)
class NamedCheckpoint:
    """The tensors of one backbone under our names, which fit its configuration to the last one."""

    scheme: str
    """Whose names the tensors had: a key of `SCHEMES`."""
    config: BackboneConfig
    """The network that the tensors show; what none shows is as `read_names` was given it."""
    state: Mapping[str, Tensor]
    """Our names -> tensors, without counters; with a projection or without."""
    their_names: Mapping[str, str]
    """Our names -> the names that the tensors had."""
    left_out: tuple[str, ...] = ()
    """Their names of tensors that come after the features and are no projection of ours."""

    def __post_init__(self) -> None:
        """Refuse tensors that are missing, too many, of another shape, or no finite numbers."""
        with torch.device("meta"):
            expected = build_backbone(self.config).state_dict()
        if not self.has_projection:
            expected = {name: expected[name] for name in expected if name not in PROJECTION}
        problems = fit_problems(self.state, expected, their_names=self.their_names)
        if problems:
            raise ValueError(f"the tensors do not fit {self.config}: {first_of(problems)}")

    @property
    def has_projection(self) -> bool:
        """Whether the linear layer behind the features is there."""
        return any(name in self.state for name in PROJECTION)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Their names of all that comes after the features, the projection first."""
        projection = tuple(self.their_names[name] for name in PROJECTION if name in self.state)
        return projection + self.left_out

    def put_into(self, model: Backbone, *, with_projection: bool = True) -> None:
        """Copy the tensors into a network.

        Args:
            model: changed in place, of the same configuration; the number of its classes may be
                another one without the projection.
            with_projection: False leaves the model's own projection, and passes over whatever
                else comes after the features.

        Raises:
            ValueError: the model is another network, or there is no projection, or something
                besides it, and it is asked for.
        """
        problems = config_differences(model.config, self.config)
        if with_projection and not self.has_projection:
            problems.append("it has no projection")
        if with_projection and self.left_out:
            problems.append(f"it has a head of its own: {first_of(self.left_out)}")
        if with_projection and self.config.num_classes != model.config.num_classes:
            problems.append(
                f"num_classes is {self.config.num_classes}, asked for is {model.config.num_classes}"
            )
        if problems:
            raise ValueError(
                f"the checkpoint, in {SCHEMES[self.scheme].title} names, is not this network: "
                f"{first_of(problems)}"
            )
        copy_weights(model, self.state, with_projection=with_projection)


def read_names(
    weights: Mapping[str, Tensor], *, unseen: BackboneConfig | None = None
) -> NamedCheckpoint:
    """Translate a state dict to our names and find out which network it is.

    Args:
        weights: their names -> tensors [...]; a `module.` before all of them is passed over.
        unseen: gives what no tensor shows, see `infer_config`.

    Raises:
        ValueError: the names are of no known scheme; one of them is foreign to its scheme (a part
            of the backbone that ours has not); two mean the same tensor; or the tensors are not
            exactly those of the network that they show.
    """
    weights = without_wrapper(weights)
    key = pick_scheme(weights)
    scheme = SCHEMES[key]
    state: dict[str, Tensor] = {}
    their_names: dict[str, str] = {}
    left_out: list[str] = []
    foreign: list[str] = []
    for theirs, tensor in weights.items():
        ours = scheme.translate(theirs)
        if scheme.bookkeeping.fullmatch(theirs):
            continue
        if ours is None:
            (left_out if theirs.startswith(scheme.head_prefixes) else foreign).append(theirs)
        elif ours in state:
            raise ValueError(f"{theirs} and {their_names[ours]} are one tensor of ours: {ours}")
        else:
            state[ours], their_names[ours] = tensor, theirs
    if foreign:
        raise ValueError(
            f"{len(foreign)} tensors are no part of a backbone of ours in {scheme.title} names, "
            f"and without them its features would be others: {first_of(foreign)}"
        )
    if not any(name.startswith(("fast_", "fusions.")) for name in state):
        state = {name.removeprefix("slow_"): tensor for name, tensor in state.items()}
        their_names = {name.removeprefix("slow_"): theirs for name, theirs in their_names.items()}
    return _settled(key, state, their_names, tuple(left_out), unseen)


def load_checkpoint(
    model: Backbone, weights: Mapping[str, Tensor], *, with_projection: bool = True
) -> NamedCheckpoint:
    """Put a state dict of any known scheme, names -> tensors [...], into `model`.

    Raises:
        ValueError: see `read_names` and `NamedCheckpoint.put_into`.
    """
    checkpoint = read_names(weights, unseen=model.config)
    checkpoint.put_into(model, with_projection=with_projection)
    return checkpoint


def copy_weights(
    model: nn.Module, state: Mapping[str, Tensor], *, with_projection: bool = True
) -> None:
    """Copy tensors [...] by our names into `model`, which must have all of them, in these shapes.

    Args:
        model: changed in place.
        state: from a checkpoint that was found to fit.
        with_projection: False leaves the model's own projection.
    """
    own = model.state_dict()
    for name, tensor in state.items():
        if with_projection or name not in PROJECTION:
            own[name].copy_(tensor)


def without_wrapper(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors [...] without the `module.` that torch's data parallelism puts before names."""
    if weights and all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    return weights


def _settled(
    key: str,
    state: dict[str, Tensor],
    their_names: dict[str, str],
    left_out: tuple[str, ...],
    unseen: BackboneConfig | None,
) -> NamedCheckpoint:
    """Infer the configuration, and bring the projection into our order and shape."""
    scheme = SCHEMES[key]
    weight = state.get("projection.weight")
    if weight is not None and weight.ndim == 5 and weight.shape[2:].numel() == 1:
        state["projection.weight"] = weight.flatten(1)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config = scheme.settle(infer_config(shapes, unseen=unseen))
    is_matrix = weight is not None and state["projection.weight"].ndim == 2
    if scheme.is_fast_first and isinstance(config, SlowFastConfig) and is_matrix:
        fast_features = config.feature_dim // (config.channel_ratio + 1)
        state["projection.weight"] = state["projection.weight"].roll(-fast_features, dims=1)
    return NamedCheckpoint(key, config, state, their_names, left_out)
