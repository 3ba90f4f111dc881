"""One weight a member: the mean, the weighted sum, and the fit that all fusions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Parametrisation = Literal["simplex", "free"]
"""Which weights are possible: "simplex" are positive with sum 1, "free" have any sign and size."""


def uniform_weights(num_members: int) -> Tensor:
    """The weights of the plain mean: fp64 [M].

    Raises:
        ValueError: there is no member.
    """
    if num_members < 1:
        raise ValueError(f"num_members must be at least 1, got {num_members}")
    return torch.full((num_members,), 1 / num_members, dtype=torch.float64)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sum values [M, ...] times weights [M] over the members: [...] in the values' type.

    It is the mean of values times weights in units of 1 / M, so that uniform weights give the
    mean to the last bit.

    Raises:
        ValueError: there is not one floating-point weight a member.
    """
    if weights.shape != values.shape[:1] or not weights.is_floating_point():
        raise ValueError(
            f"weights must be one a member, [{values.shape[0]}] floating point, "
            f"got {weights.dtype} {list(weights.shape)}"
        )
    count = len(weights)
    # 1 / M * M is 1 but for rounding (M = 49 is the first in fp64 where it is not).
    unit = torch.full((), 1 / count, dtype=weights.dtype, device=weights.device) * count
    relative = (weights * count / unit).to(dtype=values.dtype, device=values.device)
    return (values * relative.reshape(-1, *[1] * (values.dim() - 1))).mean(dim=0)


class MemberWeights(nn.Module):
    """One learned weight for each of M members; a new module gives exactly the uniform weights.

    What is learned are M fp64 numbers: their softmax is a simplex, free weights are the numbers
    themselves, and free weights that keep their sum are 1 / M plus each number's distance from
    the mean of all.
    """

    def __init__(
        self,
        num_members: int,
        *,
        parametrisation: Parametrisation = "simplex",
        keeps_sum: bool = False,
    ) -> None:
        """Start from uniform weights.

        Args:
            num_members: M.
            parametrisation: which weights are possible.
            keeps_sum: free weights have sum 1, as those of a simplex always do.

        Raises:
            ValueError: there is no member, or no such parametrisation.
        """
        super().__init__()
        if parametrisation not in get_args(Parametrisation):
            raise ValueError(
                f"parametrisation must be 'simplex' or 'free', got {parametrisation!r}"
            )
        self.num_members = num_members
        self.parametrisation: Parametrisation = parametrisation
        self.keeps_sum = keeps_sum
        self.numbers = nn.Parameter(torch.empty_like(uniform_weights(num_members)))
        self.reset()

    def reset(self) -> None:
        """Make the weights uniform again."""
        uniform = uniform_weights(self.num_members)
        is_plain = self.parametrisation == "free" and not self.keeps_sum
        with torch.no_grad():
            self.numbers.copy_(uniform if is_plain else torch.zeros_like(uniform))

    def forward(self) -> Tensor:
        """The weights [M]."""
        numbers: Tensor = self.numbers
        if self.parametrisation == "simplex":
            return numbers.softmax(dim=0)
        if self.keeps_sum:
            return 1 / self.num_members + (numbers - numbers.mean())
        return numbers.clone()


def fit_weights(
    weights: MemberWeights,
    criterion: Callable[[Tensor], Tensor],
    *,
    penalty: float = 1e-2,
    max_steps: int = 100,
) -> None:
    """Train `weights` in place to minimise `criterion`, a scalar function of them.

    Starts from uniform weights and runs L-BFGS in fp64: no randomness. A pull towards uniform
    weights keeps them finite when members separate the data perfectly and decides between members
    that are alike: the mean squared distance from them in units of 1 / M, times `penalty`, times
    what the criterion is at uniform weights. Where the fit is no better than uniform weights,
    the weights stay uniform.

    Args:
        weights: of M members; what they were before does not matter.
        criterion: from weights [M] to the value to minimise, differentiable.
        penalty: strength of the pull, at least 0.
        max_steps: of L-BFGS.

    Raises:
        ValueError: the penalty is negative.
    """
    if penalty < 0:
        raise ValueError(f"penalty must be at least 0, got {penalty}")
    weights.reset()
    if weights.num_members == 1:
        return
    uniform = uniform_weights(weights.num_members)
    with torch.no_grad():
        at_uniform = criterion(weights())
        pull = penalty * at_uniform

    def objective() -> Tensor:
        current: Tensor = weights()
        return criterion(current) + pull * (current / uniform - 1).square().mean()

    optimizer = torch.optim.LBFGS(
        weights.parameters(), max_iter=max_steps, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        improved = bool(objective() < at_uniform)
    if not improved:
        weights.reset()
