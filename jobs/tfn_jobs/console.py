"""What a user sees while a job works: one line a stage, and a bar where it takes long."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from tqdm import tqdm

Item = TypeVar("Item")

CONSOLE = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line; rich's markup is allowed."""
    CONSOLE.print(text)


def progress_bar(total: int, *, what: str, unit: str, done: int = 0) -> "tqdm[object]":
    """A bar that also reads well in a log file, where it adds a line every half a minute."""
    is_terminal = CONSOLE.is_terminal
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=unit,
        mininterval=0.2 if is_terminal else 30,
        dynamic_ncols=is_terminal,
    )


def with_progress(items: Iterable[Item], *, total: int, what: str, unit: str) -> Iterator[Item]:
    """Pass items through and count them."""
    with progress_bar(total, what=what, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()
