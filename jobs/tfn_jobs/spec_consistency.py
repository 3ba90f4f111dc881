"""What is wrong between the fields of a pipeline spec, told also when single fields are wrong."""

from collections.abc import Mapping
from typing import Any

from tfn_jobs.backbones import ARCHITECTURES, clip_problem
from tfn_jobs.member_specs import UNTRAINED
from tfn_jobs.spec_fields import (
    DEFAULT_ARCHITECTURE,
    DEFAULT_CROP,
    DEFAULT_CROPPED_FROM,
    DEFAULT_FOLDS,
    DEFAULT_FRAMES,
    DEFAULT_SHORT_SIDE,
    DEFAULT_VALIDATION_VIDEOS,
)

FAMILIES = ("classifiers", "bmns", "refiners")


def pipeline_problems(data: Mapping[str, Any], *, needs_members: bool) -> list[str]:
    """Check a pipeline spec, as written or as read; a wrong field is passed over here."""
    problems = []
    for family in FAMILIES:
        members = data.get(family) or []
        if needs_members and not members:
            problems.append(f"{family}: needs at least one member, or `until: extract`")
        problems += _name_problems(family, members)
    training = data.get("training_subset", "training")
    if _at(data, "evaluation", "subset", default="validation") == training:
        problems.append(f"evaluation.subset: {training!r} is what is trained on; name another")
    return problems + _clip_problems(data) + _enlargement_problems(data) + _fold_problems(data)


def _name_problems(family: str, members: Any) -> list[str]:
    if not isinstance(members, list):
        return []
    problems = []
    names = [member.get("name") if isinstance(member, Mapping) else None for member in members]
    for position, name in enumerate(names):
        if name is not None and name in names[:position]:
            problems.append(
                f"{family}[{position}].name: {name!r} is taken by {family}[{names.index(name)}]; "
                "give each member its own name"
            )
        if name == UNTRAINED:
            problems.append(f"{family}[{position}].name: {name!r} means the baseline")
    return problems


def _clip_problems(data: Mapping[str, Any]) -> list[str]:
    """Clips that the backbone could not read, told before any video is."""
    name = _at(data, "backbone", "architecture", default=DEFAULT_ARCHITECTURE)
    frames = _at(data, "clips", "frames_per_clip", default=DEFAULT_FRAMES)
    side = _at(data, "clips", "short_side", default=DEFAULT_SHORT_SIDE)
    square = _at(data, "clips", "crop", default="none") == "center"
    cut = _at(data, "backbone", "finetune", "random_crop", "size", default=DEFAULT_CROP)
    is_known = isinstance(name, str) and name in ARCHITECTURES
    if not is_known or not all(isinstance(number, int) for number in (frames, side, cut)):
        return []
    problem = clip_problem(name, num_frames=frames, short_side=side, square=square)
    if problem is not None:
        would_do = clip_problem(name, num_frames=frames, short_side=side, square=True) is None
        return [f"clips: {problem}{' (`crop: center` would do)' if would_do else ''}"]
    problem = clip_problem(name, num_frames=frames, short_side=cut, square=True)
    return [f"backbone.finetune.random_crop.size: {problem}"] if problem else []


def _enlargement_problems(data: Mapping[str, Any]) -> list[str]:
    """A random crop whose least scale is above what `clips` cuts."""
    crop = _at(data, "backbone", "finetune", "random_crop", default=None)
    low = _at(crop, "short_side_low", default=DEFAULT_CROPPED_FROM)
    side = _at(data, "clips", "short_side", default=DEFAULT_SHORT_SIDE)
    if crop is None or not isinstance(low, int) or not isinstance(side, int) or low <= side:
        return []
    return [
        f"backbone.finetune.random_crop.short_side_low: must be at most the {side} of "
        f"clips.short_side, got {low}: training would see nothing but enlarged frames"
    ]


def _fold_problems(data: Mapping[str, Any]) -> list[str]:
    """Of a rendered data set; that of another one is known once its annotation has been read."""
    if _at(data, "dataset", "format", default=None) != "synthetic":
        return []
    folds = _at(data, "fusion", "num_folds", default=DEFAULT_FOLDS)
    videos = _at(data, "dataset", "num_validation", default=DEFAULT_VALIDATION_VIDEOS)
    if isinstance(folds, int) and isinstance(videos, int) and folds > videos:
        return [f"fusion.num_folds: must be at most the {videos} validation videos, got {folds}"]
    return []


def _at(data: Any, *path: str, default: Any) -> Any:
    for key in path:
        if not isinstance(data, Mapping) or key not in data:
            return default
        data = data[key]
    return data
