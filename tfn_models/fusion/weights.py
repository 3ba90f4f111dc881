"""One weight a member: the mean, the weighted sum, and the fit that all fusions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Parametrisation = Literal["simplex", "free"]


def uniform_weights(num_members: int) -> Tensor:
    """The weights of the plain mean: fp64 [M]."""
    if num_members < 1:
        raise ValueError(f"num_members must be at least 1, got {num_members}")
    return torch.full((num_members,), 1 / num_members, dtype=torch.float64)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sum values [M, ...] times weights [M] over the members.

    It is the mean of values times M * weights, so that uniform weights give exactly the mean.
    """
    if weights.shape != values.shape[:1]:
        raise ValueError(
            f"weights must be one a member, [{values.shape[0]}], got shape {tuple(weights.shape)}"
        )
    relative = (weights * len(weights)).to(dtype=values.dtype, device=values.device)
    return (values * relative.reshape(-1, *[1] * (values.dim() - 1))).mean(dim=0)


def fit_weights(
    criterion: Callable[[Tensor], Tensor],
    num_members: int,
    *,
    parametrisation: Parametrisation = "simplex",
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> Tensor:
    """Weights fp64 [M] that minimise `criterion`, a scalar function of them.

    Starts from uniform weights and runs L-BFGS in fp64: no randomness. "simplex" keeps weights
    positive with sum 1 (a softmax); "free" lets them take any value. A pull towards uniform
    weights keeps them finite when members separate the data perfectly and decides between members
    that are alike: the mean squared distance from them in units of 1 / M, times `penalty`, times
    what the criterion is at uniform weights. Where the fit is no better than uniform weights,
    those are returned.
    """
    if parametrisation not in ("simplex", "free"):
        raise ValueError(f"parametrisation must be 'simplex' or 'free', got {parametrisation!r}")
    if penalty < 0:
        raise ValueError(f"penalty must be at least 0, got {penalty}")
    uniform = uniform_weights(num_members)
    simplex = parametrisation == "simplex"
    parameters = torch.zeros_like(uniform) if simplex else uniform.clone()
    parameters.requires_grad_()

    def to_weights() -> Tensor:
        return parameters.softmax(dim=0) if simplex else parameters

    with torch.no_grad():
        pull = penalty * criterion(uniform)

    def objective(weights: Tensor) -> Tensor:
        return criterion(weights) + pull * (weights / uniform - 1).square().mean()

    optimizer = torch.optim.LBFGS([parameters], max_iter=max_steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(to_weights())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    if num_members > 1:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = to_weights().detach()
    with torch.no_grad():
        improved = bool(objective(fitted) < objective(uniform))
    return fitted if improved else uniform
