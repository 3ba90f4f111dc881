"""Job specs: typed YAML whose mistakes are reported all at once; its hash names what it makes."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from tfn_platform.errors import SpecError

HASH_LENGTH = 16
WRONG_CONSTANT_WEIGHT = 1000


class Spec(BaseModel):
    """Base of what a user writes: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """A ``no`` where a number belongs is a slip, not 0."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation in (int, float):
            raise ValueError(f"must be a number, got {value} (what YAML reads yes and no as)")
        return value

    @classmethod
    def problems_across(cls, data: Mapping[str, Any]) -> list[str]:
        """What no field shows by itself, each with its path; `data` may have wrong fields, too."""
        return []

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = self.problems_across(self.model_dump())
        if problems:
            raise ValueError("\n".join(problems))
        return self


AnySpec = TypeVar("AnySpec", bound=Spec)


def load_spec(
    model: type[AnySpec],
    path: Path,
    *,
    overrides: Iterable[str] = (),
    context: Mapping[str, bool] | None = None,
) -> AnySpec:
    """Read a YAML file into a spec.

    Args:
        model: the spec class.
        path: the YAML file.
        overrides: settings such as ``bmns.d32.num_bins=24``, applied in order before the check.
        context: handed to the spec's own checks.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong; lists all problems.
    """
    data = read_yaml(path, overrides=overrides)
    return parse_spec(model, data, source=str(path), context=context)


def read_yaml(path: Path, *, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a YAML mapping and apply ``path.to.field=value`` overrides."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path}: must hold a mapping of settings, got {type(data).__name__}")
    data = {key: _without_sharing(value) for key, value in data.items()}
    for override in overrides:
        _apply_override(data, override)
    return data


def _without_sharing(value: Any) -> Any:
    """A copy in which an alias (``*name``) is a value of its own: an override changes one place."""
    if isinstance(value, dict):
        return {key: _without_sharing(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_sharing(entry) for entry in value]
    return value


def parse_spec(
    model: type[AnySpec],
    data: dict[str, Any],
    *,
    source: str,
    context: Mapping[str, bool] | None = None,
) -> AnySpec:
    """Check `data` against `model`; raise one SpecError that lists every problem found."""
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        problems = _of_the_closest_union_member(error.errors(), data)
        # With a wrong field pydantic has not asked for this; without one, it has.
        across = model.problems_across(data)
        fields = [problem for problem in problems if problem["loc"] or not across]
        lines = [f"  {_describe(problem, model, data)}" for problem in fields]
        lines += [f"  {problem}" for problem in across]
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
        raise SpecError("\n".join([f"{source}: {count}", *lines])) from None


def spec_hash(value: Any) -> str:
    """A short hash of a spec, or of what JSON can hold, whatever the order of its keys."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise SpecError(f"--set {override!r}: write it as path.to.field=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    node: Any = data
    for depth, key in enumerate(keys[:-1]):
        node = _step_into(node, key, where=".".join(keys[: depth + 1]), override=override)
    last = keys[-1]
    if isinstance(node, list):
        node[_list_position(node, last, where=path, override=override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise SpecError(f"--set {override!r}: {'.'.join(keys[:-1])!r} holds {node!r}, no settings")


def _step_into(node: Any, key: str, *, where: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_position(node, key, where=where, override=override)]
    if not isinstance(node, dict):
        above = where.rpartition(".")[0]
        raise SpecError(f"--set {override!r}: {above!r} holds {node!r}, no settings")
    if node.get(key) is None:
        node[key] = {}
    return node[key]


def _list_position(items: list[Any], key: str, *, where: str, override: str) -> int:
    """An entry of a list is addressed by its number or by its `name`."""
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    names = [
        str(item["name"]) if isinstance(item, dict) and "name" in item else str(position)
        for position, item in enumerate(items)
    ]
    if key in names:
        return names.index(key)
    choices = ", ".join(names) or "none"
    raise SpecError(f"--set {override!r}: no entry {where!r}; there are: {choices}")


def _describe(problem: ErrorDetails, model: type[BaseModel], data: Any) -> str:
    location = _location(_yaml_path(problem, data)) or "(the whole spec)"
    if problem["type"] == "extra_forbidden":
        unknown = str(problem["loc"][-1])
        names = _all_field_names(model)
        close = difflib.get_close_matches(unknown, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "take it out"
        if unknown in names:
            hint = "it is a setting of another section"
        return f"{location}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{location}: is needed and not given"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{location}: {message}"
    return f"{location}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _of_the_closest_union_member(problems: list[ErrorDetails], data: Any) -> list[ErrorDetails]:
    """Where one of several specs would do, keep the problems of the one that was meant.

    That is the one with the fewest problems, a wrong constant such as `format` counting most.
    """
    unions: dict[tuple[str | int, ...], dict[str | int, int]] = {}
    for problem in problems:
        for place, tag in _union_tags(problem, data).items():
            counts = unions.setdefault(place, {})
            weight = WRONG_CONSTANT_WEIGHT if problem["type"] == "literal_error" else 1
            counts[tag] = counts.get(tag, 0) + weight
    closest = {place: min(counts, key=lambda t: counts[t]) for place, counts in unions.items()}
    return [
        problem
        for problem in problems
        if all(closest[place] == tag for place, tag in _union_tags(problem, data).items())
    ]


def _union_tags(problem: ErrorDetails, data: Any) -> dict[tuple[str | int, ...], str | int]:
    """The parts of a problem's location that no YAML holds, by what stands before them.

    pydantic names the member of a union that it tried, as in ``dataset.AnnotatedDataSpec.videos``.
    """
    tags: dict[tuple[str | int, ...], str | int] = {}
    node, parts = data, problem["loc"]
    names_a_key = problem["type"] in ("missing", "extra_forbidden")
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif not (is_last and names_a_key):
            tags[parts[:depth]] = part
    return tags


def _yaml_path(problem: ErrorDetails, data: Any) -> list[str | int]:
    tags = _union_tags(problem, data)
    return [part for depth, part in enumerate(problem["loc"]) if problem["loc"][:depth] not in tags]


def _location(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _all_field_names(model: type[BaseModel]) -> list[str]:
    """The names of all fields of a spec and of the specs inside it."""
    definitions = model.model_json_schema()
    schemas = [definitions, *definitions.get("$defs", {}).values()]
    return sorted({name for schema in schemas for name in schema.get("properties", {})})
