"""Measure two ways of doing the same, side by side in one process."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Comparison:
    """Ours and the textbook way of one piece of work."""

    name: str
    ours: Callable[[], object]
    textbook: Callable[[], object]
    """The straightforward definition; runs `textbook_share` of the work."""
    check: Callable[[object, object], None]
    """Takes what ours and the textbook returned; raises AssertionError where they differ."""
    goal: float
    """Textbook time over ours, at least."""
    textbook_share: float = 1.0
    """Part of the work that the textbook side does; its time is divided by this."""
    note: str = ""
    """What the textbook side is; states the share when it is below 1."""
    memory_goal: float | None = None
    """Textbook extra memory over ours, at least; None where memory is not compared."""


@dataclass(frozen=True)
class Row:
    """What was measured; medians over the repeats."""

    name: str
    note: str
    device: str
    repeats: int
    our_seconds: float
    textbook_seconds: float
    """Of the whole work, so divided by the share that was run."""
    textbook_share: float
    ratio: float
    goal: float
    our_bytes: int | None = None
    """Peak of the memory beyond what was in use before."""
    textbook_bytes: int | None = None
    memory_ratio: float | None = None
    memory_goal: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the goals are met."""
        memory = self.memory_goal is None or (self.memory_ratio or 0.0) >= self.memory_goal
        return self.ratio >= self.goal and memory


def compare(
    comparison: Comparison,
    *,
    device: torch.device,
    repeats: int,
    extra_bytes: Callable[[str], int],
) -> Row:
    """Check that both sides agree, then time them in turns, then ask for their memory.

    Args:
        comparison: what to measure.
        device: on a CPU the time is CPU time of the whole process (all threads), on a GPU the
            time until the device is done.
        repeats: of each side; medians are reported.
        extra_bytes: memory of the side ("ours", "textbook"), asked for where it is compared.
    """
    comparison.check(comparison.ours(), comparison.textbook())
    ours, textbook = [], []
    for _ in range(repeats):
        ours.append(_seconds(comparison.ours, device))
        textbook.append(_seconds(comparison.textbook, device) / comparison.textbook_share)
    our_seconds, textbook_seconds = statistics.median(ours), statistics.median(textbook)
    our_bytes = textbook_bytes = memory_ratio = None
    if comparison.memory_goal is not None:
        our_bytes, textbook_bytes = extra_bytes("ours"), extra_bytes("textbook")
        memory_ratio = textbook_bytes / max(our_bytes, 1)
    return Row(
        name=comparison.name,
        note=comparison.note,
        device=device_name(device),
        repeats=repeats,
        our_seconds=our_seconds,
        textbook_seconds=textbook_seconds,
        textbook_share=comparison.textbook_share,
        ratio=textbook_seconds / our_seconds,
        goal=comparison.goal,
        our_bytes=our_bytes,
        textbook_bytes=textbook_bytes,
        memory_ratio=memory_ratio,
        memory_goal=comparison.memory_goal,
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        return time.perf_counter() - before
    before = time.process_time()
    work()
    return time.process_time() - before


def device_name(device: torch.device) -> str:
    """What a reader of the figures wants to know of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} thread(s)"
