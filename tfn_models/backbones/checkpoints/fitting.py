"""Whether tensors are exactly those that a network has."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SHOWN = 5
"""Problems that a message lists; of the others it gives the number."""


def fit_problems(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    their_names: Mapping[str, str] | None = None,
) -> list[str]:
    """What keeps a state dict from being loaded, a sentence each; empty if nothing does.

    Args:
        state: tensors [...] by name, none of them a counter of a batch normalisation.
        expected: the network's own state dict; its tensors may be without data, on "meta".
        their_names: what a tensor of `state` was called in the file it comes from.
    """

    def called(name: str) -> str:
        theirs = (their_names or {}).get(name, name)
        return name if theirs == name else f"{name} ({theirs})"

    places = {name: expected[name] for name in expected if not is_counter(name)}
    missing = [f"{name} is missing" for name in places if name not in state]
    left_over = [f"{called(name)} has no place" for name in state if name not in places]
    unfit = [
        f"{called(name)} {problem}"
        for name, place in places.items()
        if name in state and (problem := _tensor_problem(state[name], place))
    ]
    return missing + left_over + unfit


def is_counter(name: str) -> bool:
    """Whether a tensor counts batches: no forward pass of ours reads it."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def first_of(items: Sequence[str]) -> str:
    """The first few items, and how many there are besides."""
    more = f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more


def _tensor_problem(tensor: Tensor, place: Tensor) -> str:
    if tensor.shape != place.shape:
        return f"is {list(tensor.shape)}, must be {list(place.shape)}"
    if tensor.is_floating_point() != place.is_floating_point():
        wanted = "floating-point numbers" if place.is_floating_point() else f"{place.dtype}"
        return f"holds {tensor.dtype}, must hold {wanted}"
    if tensor.is_floating_point() and not tensor.is_meta:
        return "" if bool(torch.isfinite(tensor).all()) else "holds values that are not finite"
    return ""
