"""What is wrong between the fields of a pipeline spec, told also when single fields are wrong."""

from collections.abc import Mapping
from typing import Any

from tfn_jobs.backbones import ARCHITECTURES, clip_problem
from tfn_jobs.member_specs import UNTRAINED

FAMILIES = ("classifiers", "bmns", "refiners")
DEFAULT_FOLDS, DEFAULT_VALIDATION_VIDEOS = 5, 60
DEFAULT_ARCHITECTURE, DEFAULT_FRAMES, DEFAULT_SHORT_SIDE = "slowfast_r101", 32, 256
DEFAULT_CROP = 224


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
    return problems + _clip_problems(data) + _fold_problems(data)


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
    hint = "" if square else " (`crop: center` makes frames square)"
    if problem is not None:
        return [f"clips: {problem}{hint}"]
    problem = clip_problem(name, num_frames=frames, short_side=cut, square=True)
    return [f"backbone.finetune.random_crop.size: {problem}"] if problem else []


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
