"""What is wrong between the clips and the backbone of a spec; the rest is in test_pipeline_spec."""

from typing import Any

import pytest

from tfn_jobs.pipeline_spec import BackboneSpec, ClipsSpec, PipelineSpec, RandomCropSpec
from tfn_jobs.spec_consistency import (
    DEFAULT_ARCHITECTURE,
    DEFAULT_CROP,
    DEFAULT_FRAMES,
    DEFAULT_SHORT_SIDE,
)
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
            "(`crop: center` makes frames square)",
        ),
        (
            {"short_side": 224, "frames_per_clip": 16, "crop": "center"},
            {"architecture": "mvit_v1_b"},
            "clips: clips must hold exactly 32 frames for mvit_v1_b, got 16",
        ),
        (
            {"short_side": 224, "crop": "center"},
            {"architecture": "mvit_v2_s", "finetune": {"random_crop": {"size": 200}}},
            "backbone.finetune.random_crop.size: clips must be exactly 224 pixels",
        ),
    ],
)
def test_clips_that_the_backbone_cannot_read_are_told_before_any_work(
    spec_data: dict[str, Any], clips: Any, backbone: Any, expected: str
) -> None:
    spec_data |= {"clips": clips, "backbone": backbone}
    (problem,) = problems_of(spec_data)
    assert problem.startswith(expected), problem
    # And also next to a field that is wrong by itself.
    spec_data["seed"] = -1
    assert any(problem.startswith(expected) for problem in problems_of(spec_data))


def test_clips_that_the_backbone_can_read_are_accepted(spec_data: dict[str, Any]) -> None:
    for clips, backbone in (
        ({"short_side": 224, "crop": "center"}, {"architecture": "mvit_v2_s"}),
        ({}, {"architecture": "i3d_r50"}),
        ({"frames_per_clip": 31}, {"architecture": "swin3d_t", "finetune": {"random_crop": {}}}),
    ):
        spec_data |= {"clips": clips, "backbone": backbone}
        parse_spec(PipelineSpec, spec_data, source="")


def test_what_is_assumed_of_a_spec_that_is_silent() -> None:
    """The check of the clips looks at the YAML, where a default is not written."""
    assert BackboneSpec().architecture == DEFAULT_ARCHITECTURE
    clips = ClipsSpec()
    assert (clips.frames_per_clip, clips.short_side) == (DEFAULT_FRAMES, DEFAULT_SHORT_SIDE)
    assert clips.crop == "none"
    assert RandomCropSpec().size == DEFAULT_CROP
