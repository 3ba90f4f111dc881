"""Job specs: typed YAML whose every mistake is reported at once, and whose hash names what it makes."""

import difflib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tfn_platform.errors import SpecError

HASH_LENGTH = 16


class Spec(BaseModel):
    """Base of everything that a user writes: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


AnySpec = TypeVar("AnySpec", bound=Spec)


def load_spec(model: type[AnySpec], path: Path, *, overrides: Iterable[str] = ()) -> AnySpec:
    """Read a YAML file into a spec.

    Args:
        model: the spec class.
        path: the YAML file.
        overrides: settings such as ``bmns.d32.num_bins=24``, applied in order before anything is checked.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong; lists all problems.
    """
    return parse_spec(model, read_yaml(path, overrides=overrides), source=str(path))


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
    for override in overrides:
        _apply_override(data, override)
    return data


def parse_spec(model: type[AnySpec], data: dict[str, Any], *, source: str) -> AnySpec:
    """Check `data` against `model`; raise one SpecError that lists every problem found."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors()
        lines = [f"  {_describe(problem, model)}" for problem in details]
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
        raise SpecError("\n".join([f"{source}: {count}", *lines])) from None


def spec_hash(value: Any) -> str:
    """A short hash of a spec, or of anything JSON can hold, that does not depend on the order of keys."""
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
        raise SpecError(f"--set {override!r}: {'.'.join(keys[:-1])} holds no settings")


def _step_into(node: Any, key: str, *, where: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_position(node, key, where=where, override=override)]
    if not isinstance(node, dict):
        raise SpecError(f"--set {override!r}: nothing can stand below {where!r}")
    if node.get(key) is None:
        node[key] = {}
    return node[key]


def _list_position(items: list[Any], key: str, *, where: str, override: str) -> int:
    """An entry of a list is addressed by its number or by its `name`."""
    if key.isdigit() and int(key) < len(items):
        return int(key)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if key in names:
        return names.index(key)
    choices = [name or str(position) for position, name in enumerate(names)]
    raise SpecError(f"--set {override!r}: no entry {where!r}; there are: {', '.join(choices)}")


def _describe(problem: ErrorDetails, model: type[BaseModel]) -> str:
    location = _location(problem["loc"]) or "(the whole spec)"
    if problem["type"] == "extra_forbidden":
        unknown = str(problem["loc"][-1])
        close = difflib.get_close_matches(unknown, _all_field_names(model), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "take it out"
        return f"{location}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{location}: is needed and not given"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{location}: {message}"
    return f"{location}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


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
