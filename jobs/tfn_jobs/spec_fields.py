"""Kinds of value that several parts of the pipeline spec hold, checked where they are written."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

# Defaults that `pipeline_spec` writes down and `spec_consistency` fills in where a YAML is silent.
DEFAULT_ARCHITECTURE = "slowfast_r101"
DEFAULT_FRAMES = 32
DEFAULT_SHORT_SIDE = 256
DEFAULT_CROP = 224
DEFAULT_CROPPED_FROM = 256
DEFAULT_FOLDS = 5
DEFAULT_VALIDATION_VIDEOS = 60

RUNS_ELSEWHERE = "runs_elsewhere"
"""In the context of a check: the spec is for a cluster, whose files cannot be looked at here."""


def _fraction(text: str) -> str:
    """Exact positive number, such as 15, 0.5, 30000/1001."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"must be a number or a fraction such as 8/15, got {text!r}") from None
    if value <= 0:
        raise ValueError(f"must be positive, got {text!r}")
    return str(value)


def _existing(uri: str, info: ValidationInfo) -> str:
    """A file or folder that is there; local ones become absolute, so that workers find them too."""
    if "://" in uri:
        return uri
    if info.context and info.context.get(RUNS_ELSEWHERE):
        if not uri.startswith("/"):
            raise ValueError(f"must be absolute, or a URI, for a cluster to find it, got {uri!r}")
        return uri
    path = Path(uri).expanduser().resolve()
    if not path.exists():
        raise ValueError(f"there is no file or folder {uri!r} (looked for {str(path)!r})")
    return str(path)


def _each_channel(value: Any) -> Any:
    """One number stands for red, green and blue alike."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value, value, value) if is_number else value


def _shares(values: tuple[float, float, float]) -> tuple[float, float, float]:
    """Numbers on the scale of frames in 0..1."""
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"must be between 0 and 1, got {', '.join(f'{v:g}' for v in values)}")
    return values


def one_of(names: list[str], what: str, *, elsewhere: tuple[str, ...] = ()) -> AfterValidator:
    """Only these names; the error lists them, and those that other specs take in this place."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(
                f"no {what} {name!r}; there are: {', '.join(sorted([*names, *elsewhere]))}"
            )
        return name

    return AfterValidator(check)


ExactNumber = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_fraction)]
ExistingUri = Annotated[str, AfterValidator(_existing)]
ChannelNumbers = Annotated[
    tuple[float, float, float], BeforeValidator(_each_channel), AfterValidator(_shares)
]
