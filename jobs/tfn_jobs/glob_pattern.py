"""Globs over paths that need not be those of a disk: ``/data/**/*.mp4``, ``s3://bucket/*/*.avi``."""

import re
from collections.abc import Callable

from tfn_platform.errors import DataError

NOT_HIDDEN = r"(?!\.)"


def is_glob(source: str) -> bool:
    """Whether it holds a wildcard; in an address a question mark is none."""
    return any(character in source for character in ("*[" if "://" in source else "*?["))


def split_glob(pattern: str) -> tuple[str, str]:
    """The folder before the first name with a wildcard, and the rest of the pattern."""
    names = pattern.split("/")
    first = next(number for number, name in enumerate(names) if is_glob(name))
    return "/".join(names[:first]) or "/", "/".join(names[first:])


def glob_filter(pattern: str) -> Callable[[str], bool]:
    """Make a test of whether a path matches.

    ``*``, ``?`` and ``[…]`` match within a name, ``**/`` any folders, none included. As in a shell,
    no wildcard matches a dot that begins a name.

    Raises:
        DataError: brackets hold nothing, or a range that ends before it begins.
    """
    names = pattern.split("/")
    expressions = [
        _any_folders(is_last=number == len(names) - 1)
        if name == "**"
        else _name_expression(name) + ("" if number == len(names) - 1 else "/")
        for number, name in enumerate(names)
    ]
    try:
        compiled = re.compile("".join(expressions), re.DOTALL)
    except re.error as error:
        raise DataError(
            f"{pattern}: brackets must hold characters, or ranges such as a-z, that a name may "
            f"have in this place ({error.msg}); [[] is a bracket itself"
        ) from error
    return lambda path: compiled.fullmatch(path) is not None


def _any_folders(*, is_last: bool) -> str:
    name = f"{NOT_HIDDEN}[^/]+"
    return f"{name}(?:/{name})*" if is_last else f"(?:{name}/)*"


def _name_expression(name: str) -> str:
    expression = NOT_HIDDEN if name[:1] in ("*", "?", "[") else ""
    for token in re.findall(r"\[!?\]?[^\]]*\]|.", name, re.DOTALL):
        if token == "*":
            expression += "[^/]*"
        elif token == "?":
            expression += "[^/]"
        elif len(token) > 1:
            expression += _set_expression(token[1:-1])
        else:
            expression += re.escape(token)
    return expression


def _set_expression(inside: str) -> str:
    """``[…]`` as a regular expression has it; only ``!`` and ``-`` mean more than themselves."""
    negation, inside = ("^", inside[1:]) if inside.startswith("!") else ("", inside)
    return f"[{negation}" + re.sub(r"([\\\]\[^&~|])", r"\\\1", inside) + "]"
