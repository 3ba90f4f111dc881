"""Tensors fit a network when none is missing, too many, of another shape or not finite."""

import pytest
import torch
from torch import Tensor

from tfn_models.backbones.checkpoints.fitting import first_of, fit_problems, is_counter


def expected() -> dict[str, Tensor]:
    with torch.device("meta"):
        return {
            "a": torch.empty(2, 3),
            "index": torch.empty(2, dtype=torch.int64),
            "norm.num_batches_tracked": torch.empty((), dtype=torch.int64),
        }


def fitting() -> dict[str, Tensor]:
    return {"a": torch.ones(2, 3), "index": torch.tensor([0, 1])}


def test_tensors_that_fit() -> None:
    assert fit_problems(fitting(), expected()) == []
    assert fit_problems(fitting() | {"a": torch.ones(2, 3).half()}, expected()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"a": torch.ones(3, 2)}, "a (their.a) is [3, 2], must be [2, 3]"),
        ({"a": torch.ones(2)}, "a (their.a) is [2], must be [2, 3]"),
        (
            {"a": torch.ones(2, 3, dtype=torch.int32)},
            "a (their.a) holds torch.int32, must hold floating-point numbers",
        ),
        ({"index": torch.ones(2)}, "index holds torch.float32, must hold torch.int64"),
        ({"a": torch.full((2, 3), torch.nan)}, "a (their.a) holds values that are not finite"),
        ({"b": torch.ones(1)}, "b has no place"),
    ],
)
def test_one_problem(changes: dict[str, Tensor], problem: str) -> None:
    found = fit_problems(fitting() | changes, expected(), their_names={"a": "their.a"})
    assert found == [problem]


def test_all_problems_are_told() -> None:
    assert fit_problems({"index": torch.ones(2), "b": torch.ones(1)}, expected()) == [
        "a is missing",
        "b has no place",
        "index holds torch.float32, must hold torch.int64",
    ]


def test_counters() -> None:
    assert is_counter("num_batches_tracked") and is_counter("stem.norm.num_batches_tracked")
    assert not is_counter("stem.norm.running_mean")


def test_only_the_first_are_listed() -> None:
    assert first_of(["a"]) == "a"
    assert first_of(list("abcde")) == "a; b; c; d; e"
    assert first_of(list("abcdefg")) == "a; b; c; d; e; and 2 more"
