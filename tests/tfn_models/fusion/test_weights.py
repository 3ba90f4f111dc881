"""Sums by weight and the fit of weights."""

import pytest
import torch
from torch import Tensor

from tfn_models.fusion.weights import fit_weights, uniform_weights, weighted_sum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_members", [1, 2, 3, 5, 10, 14])
def test_uniform_weights_are_exactly_the_mean(num_members: int, dtype: torch.dtype) -> None:
    values = torch.randn(num_members, 4, 7, dtype=dtype)
    assert torch.equal(weighted_sum(values, uniform_weights(num_members)), values.mean(dim=0))


def test_weighted_sum_equals_a_loop() -> None:
    values, weights = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0.2, -1.0, 2.5])
    expected = sum(w * v for w, v in zip(weights.tolist(), values, strict=True))
    torch.testing.assert_close(weighted_sum(values, weights.double()), expected)


def test_finds_the_minimum_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(3, 50, generator=generator, dtype=torch.float64)

    def error(weights: Tensor, truth: Tensor) -> Tensor:
        return (weighted_sum(members, weights) - truth).square().mean()

    for wanted, parametrisation in (
        ([0.2, 0.3, 0.5], "simplex"),
        ([1.5, -0.5, 0.25], "free"),
    ):
        weights = torch.tensor(wanted, dtype=torch.float64)
        truth = weighted_sum(members, weights)
        fitted = fit_weights(
            lambda w, truth=truth: error(w, truth),  # type: ignore[misc]
            3,
            parametrisation=parametrisation,  # type: ignore[arg-type]
            penalty=0.0,
        )
        torch.testing.assert_close(fitted, weights, rtol=0, atol=1e-3)


def test_a_flat_criterion_keeps_uniform_weights() -> None:
    fitted = fit_weights(lambda weights: 0 * weights.sum(), 4)
    assert torch.equal(fitted, uniform_weights(4))


def test_refuses_wrong_settings() -> None:
    with pytest.raises(ValueError, match="'simplex' or 'free', got 'best'"):
        fit_weights(torch.sum, 2, parametrisation="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="penalty must be at least 0, got -1"):
        fit_weights(torch.sum, 2, penalty=-1)
    with pytest.raises(ValueError, match="num_members must be at least 1, got 0"):
        uniform_weights(0)
    with pytest.raises(ValueError, match=r"one a member, \[2\], got shape \(3,\)"):
        weighted_sum(torch.zeros(2, 5), torch.zeros(3))
