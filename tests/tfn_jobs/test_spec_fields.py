"""Numbers that a spec may give once, or once for each channel."""

from typing import Any

import pytest

from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.errors import SpecError
from tfn_platform.spec import parse_spec


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({}, (None, None)),
        ({"mean": 0.5}, ((0.5, 0.5, 0.5), None)),
        ({"mean": 0, "std": [0.2, 0.3, 0.4]}, ((0, 0, 0), (0.2, 0.3, 0.4))),
        ({"mean": None}, (None, None)),
    ],
)
def test_normalisation_is_one_number_or_one_a_channel(
    spec_data: dict[str, Any], written: dict[str, Any], read: tuple[Any, Any]
) -> None:
    spec_data["backbone"] |= written
    backbone = parse_spec(PipelineSpec, spec_data, source="").backbone
    assert (backbone.mean, backbone.std) == read


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("std", 0, "backbone.std: must be above 0, got 0"),
        ("std", [0.2, 0, 0.2], "backbone.std: must be above 0, got 0"),
        ("mean", 123.7, "backbone.mean: must be between 0 and 1, got 123.7, 123.7, 123.7"),
        ("mean", float("nan"), "backbone.mean: must be between 0 and 1, got nan, nan, nan"),
        ("mean", [0.4, 0.5], "backbone.mean[2]: is needed and not given"),
        ("mean", [0.4, 0.5, "a"], "backbone.mean[2]: input should be a valid number"),
        ("mean", False, "backbone.mean: input should be a valid tuple, got False"),
    ],
)
def test_other_values_are_refused(
    spec_data: dict[str, Any], name: str, value: Any, expected: str
) -> None:
    spec_data["backbone"] |= {name: value}
    with pytest.raises(SpecError) as caught:
        parse_spec(PipelineSpec, spec_data, source="small.yaml")
    _, problem = str(caught.value).splitlines()
    assert problem.strip().startswith(expected)
