"""What is wrong between the clips and the backbone of a spec; the rest is in test_pipeline_spec."""

from typing import Any

import pytest

from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.errors import SpecError
from tfn_platform.spec import parse_spec


def problems_of(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(PipelineSpec, data, source="small.yaml")
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("clips", "backbone", "expected"),
    [
        (
            {"frames_per_clip": 10},
            {"architecture": "slowfast_tiny"},
            "clips: clips must hold a multiple of frame_ratio=4 frames, got 10",
        ),
        (
            {"frames_per_clip": 4},
            {"architecture": "i3d_r50"},
            "clips: clips must hold at least 5 frames",
        ),
        (
            {"crop": "center"},
            {"architecture": "mvit_v2_s"},
            "clips: clips must be exactly 224 pixels high and wide for mvit_v2_s, got 256 and 256",
        ),
        (
            {"short_side": 224},
            {"architecture": "mvit_v2_s"},
            "clips: clips must be exactly 224 pixels high and wide for mvit_v2_s, got 224 and 398 "
            "(`crop: center` would do)",
        ),
        (
            {"short_side": 224, "frames_per_clip": 16},
            {"architecture": "mvit_v2_s"},
            "clips: clips must hold exactly 32 frames for mvit_v2_s, got 16",
        ),
        (
            {"short_side": 224, "frames_per_clip": 16, "crop": "center"},
            {"architecture": "mvit_v1_b"},
            "clips: clips must hold exactly 32 frames for mvit_v1_b, got 16",
        ),
        (
            {"short_side": 224, "crop": "center"},
            {
                "architecture": "mvit_v2_s",
                "finetune": {"random_crop": {"size": 200, "short_side_low": 224}},
            },
            "backbone.finetune.random_crop.size: clips must be exactly 224 pixels",
        ),
        (
            {"short_side": 240},
            {"architecture": "slowfast_tiny", "finetune": {"random_crop": {}}},
            "backbone.finetune.random_crop.short_side_low: must be at most the 240 of "
            "clips.short_side, got 256: training would see nothing but enlarged frames",
        ),
    ],
)
def test_clips_that_the_backbone_cannot_read_are_told_before_any_work(
    spec_data: dict[str, Any], clips: Any, backbone: Any, expected: str
) -> None:
    spec_data |= {"clips": clips, "backbone": backbone}
    (problem,) = problems_of(spec_data)
    assert problem.startswith(expected), problem
    # What would not help is not advised.
    assert ("crop: center" in problem) == ("crop: center" in expected)
    # And also next to a field that is wrong by itself.
    spec_data["seed"] = -1
    assert any(problem.startswith(expected) for problem in problems_of(spec_data))


def test_clips_that_the_backbone_can_read_are_accepted(spec_data: dict[str, Any]) -> None:
    for clips, backbone in (
        ({"short_side": 224, "crop": "center"}, {"architecture": "mvit_v2_s"}),
        ({}, {"architecture": "i3d_r50"}),
        ({}, {"architecture": "i3d_r50", "finetune": {"random_crop": None}}),
        ({"short_side": 224}, {"finetune": {"random_crop": {"short_side_low": 224}}}),
        ({"frames_per_clip": 31}, {"architecture": "swin3d_t", "finetune": {"random_crop": {}}}),
    ):
        spec_data |= {"clips": clips, "backbone": backbone}
        parse_spec(PipelineSpec, spec_data, source="")


def test_what_is_assumed_of_a_spec_that_is_silent(spec_data: dict[str, Any]) -> None:
    """Next to a wrong field the check looks at the YAML, where a default is not written."""
    spec_data |= {"clips": {}, "backbone": {"finetune": {"random_crop": {}}}, "seed": -1}
    assert len(problems_of(spec_data)) == 1
    spec_data["backbone"] = {"architecture": "mvit_v2_s"}
    assert any(
        "224 pixels" in problem and "256 and 455" in problem for problem in problems_of(spec_data)
    )
    spec_data["clips"] = {"frames_per_clip": 6}
    del spec_data["backbone"]
    assert any("frame_ratio=4" in problem for problem in problems_of(spec_data))
    spec_data |= {"clips": {"short_side": 255}, "backbone": {"finetune": {"random_crop": {}}}}
    assert any("255 of clips.short_side, got 256" in problem for problem in problems_of(spec_data))
