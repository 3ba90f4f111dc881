"""Sums by weight, the module that holds the weights, and their fit."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.fusion.weights import MemberWeights, fit_weights, uniform_weights, weighted_sum

KINDS: dict[str, dict[str, Any]] = {
    "simplex": {},
    "free": {"parametrisation": "free"},
    "free, sum 1": {"parametrisation": "free", "keeps_sum": True},
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("num_members", [1, 2, 3, 5, 10, 14, 41, 49, 98, 103])
def test_uniform_weights_are_exactly_the_mean(num_members: int, dtype: torch.dtype) -> None:
    """With 49 members the mean in fp64 was off by a bit: 1 / 49 * 49 is not 1."""
    values = torch.randn(num_members, 4, 7).to(dtype)
    assert torch.equal(weighted_sum(values, uniform_weights(num_members)), values.mean(dim=0))
    in_fp32 = torch.full((num_members,), 1 / num_members)
    assert torch.equal(weighted_sum(values, in_fp32), values.mean(dim=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_module_holds_exactly_the_uniform_weights(kind: str) -> None:
    for num_members in range(1, 130):
        weights = MemberWeights(num_members, **KINDS[kind])
        assert torch.equal(weights(), uniform_weights(num_members))


def test_weighted_sum_equals_a_loop() -> None:
    values, weights = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0.2, -1.0, 2.5])
    expected = sum(w * v for w, v in zip(weights.tolist(), values, strict=True))
    torch.testing.assert_close(weighted_sum(values, weights.double()), expected)


@settings(max_examples=30, deadline=None)
@given(numbers=st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_each_parametrisation_against_its_formula(numbers: list[float]) -> None:
    count = len(numbers)
    exponentials = torch.tensor(numbers, dtype=torch.float64).exp()
    expected = {
        "simplex": [float(e / exponentials.sum()) for e in exponentials],
        "free": numbers,
        "free, sum 1": [1 / count + number - sum(numbers) / count for number in numbers],
    }
    for kind, options in KINDS.items():
        weights = MemberWeights(count, **options)
        weights.load_state_dict({"numbers": torch.tensor(numbers, dtype=torch.float64)})
        assert weights().tolist() == pytest.approx(expected[kind], abs=1e-12)
        if kind != "free":
            assert float(weights().sum().detach()) == pytest.approx(1)
        weights.reset()
        assert torch.equal(weights(), uniform_weights(count))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    weights = MemberWeights(3, **KINDS[kind])
    numbers = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    values = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def fused(numbers: Tensor, values: Tensor) -> Tensor:
        current = torch.func.functional_call(weights, {"numbers": numbers}, ())
        return weighted_sum(values, current)

    assert torch.autograd.gradcheck(fused, (numbers, values))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("simplex", [0.2, 0.3, 0.5]),
        ("free", [1.5, -0.5, 0.25]),
        ("free, sum 1", [1.5, -0.75, 0.25]),
    ],
)
def test_finds_the_minimum_of_least_squares(kind: str, wanted: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    truth = weighted_sum(members, torch.tensor(wanted, dtype=torch.float64))
    weights = MemberWeights(3, **KINDS[kind])
    fit_weights(
        weights, lambda current: (weighted_sum(members, current) - truth).square().mean(), penalty=0
    )
    torch.testing.assert_close(weights().detach(), torch.tensor(wanted).double(), rtol=0, atol=1e-3)


def test_a_sum_that_is_kept_forbids_another_scale() -> None:
    """The truth is twice the first member: free weights say so, those with sum 1 cannot."""
    members = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums = {}
    for kind, options in KINDS.items():
        weights = MemberWeights(2, **options)
        fit_weights(weights, lambda w: (weighted_sum(members, w) - 2 * members[0]).square().mean())
        sums[kind] = float(weights().sum().detach())
    assert sums["free"] > 1.8
    assert sums["simplex"] == pytest.approx(1)
    assert sums["free, sum 1"] == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flat_criterion_keeps_uniform_weights(kind: str) -> None:
    weights = MemberWeights(4, **KINDS[kind])
    with torch.no_grad():
        weights.numbers += torch.arange(4)
    fit_weights(weights, lambda current: 0 * current.sum())
    assert torch.equal(weights(), uniform_weights(4))


def test_a_fit_that_fails_leaves_uniform_weights() -> None:
    """The root has no slope at uniform weights, so the first step goes to NaN."""
    weights = MemberWeights(3)
    fit_weights(weights, lambda current: (current - 1 / 3).abs().sum().sqrt() + 1)
    assert torch.equal(weights(), uniform_weights(3))


def test_refuses_wrong_settings() -> None:
    with pytest.raises(ValueError, match="'simplex' or 'free', got 'best'"):
        MemberWeights(2, parametrisation="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="penalty must be at least 0, got -1"):
        fit_weights(MemberWeights(2), torch.sum, penalty=-1)
    with pytest.raises(ValueError, match="num_members must be at least 1, got 0"):
        uniform_weights(0)
    with pytest.raises(ValueError, match="num_members must be at least 1, got 0"):
        MemberWeights(0)
    with pytest.raises(ValueError, match=r"one a member, \[2\] floating point, got .* \[3\]"):
        weighted_sum(torch.zeros(2, 5), torch.zeros(3))
    with pytest.raises(ValueError, match=r"got torch.int64 \[2\]"):
        weighted_sum(torch.zeros(2, 5), torch.ones(2, dtype=torch.int64))
