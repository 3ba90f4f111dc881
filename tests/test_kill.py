"""SIGKILL in the middle of a run, the driver and its whole Ray: the next run goes on where it was.

One storage root is killed in one stage after the other; what it has in the end must be what an
undisturbed run has. By default in three stages, with `-m kill` in each of them.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.tfn_process import (
    TINY,
    FinishedRun,
    Tfn,
    kill_when,
    planned,
    printed_hash,
)

NUM_QUICK_KILLS = 3
SEED = 7


class Progress:
    """What a storage root shows of a run that is under way."""

    def __init__(self, root: Path) -> None:
        """Look below `root`."""
        self._stages = root / "stages"
        self._root = root

    def num(self, pattern: str) -> int:
        """How many files of the stages match."""
        return sum(1 for _ in self._stages.glob(pattern))

    def is_done(self, *stages: str) -> bool:
        """Whether all these stages are committed."""
        return all(self.num(f"{stage}/*/done.json") for stage in stages)

    def is_training(self, stage: str) -> bool:
        """Whether the first epoch is over; the state is deleted before the commit."""
        return self.num(f"{stage}/*/training_state.pt") > 0 or self.is_done(stage)

    def is_published(self) -> bool:
        """Whether the results are in MLflow."""
        return any(self._root.glob("pipelines/*.published.json"))


BMNS = ("bmn/d8", "bmn/d12_lstm1", "bmn/untrained")
CLASSIFIERS = ("classifier/mean", "classifier/transformer_bnm", "classifier/untrained")
REFINERS = ("refiner/base", "refiner/full")

# In order: where to kill, and what shows that the run has got there.
KILL_POINTS: dict[str, Callable[[Progress], bool]] = {
    "synthesize": lambda p: p.num("synthesize/*/videos/*.mp4") >= 3,
    "prepare": lambda p: p.is_done("synthesize"),
    "finetune": lambda p: p.is_training("finetune"),
    "extract": lambda p: p.is_done("finetune"),
    "members": lambda p: p.is_training("bmn/d12_lstm1"),
    "propose": lambda p: p.is_done(*BMNS, *CLASSIFIERS),
    "refiners": lambda p: p.is_training("refiner/full"),
    "fuse": lambda p: p.is_done(*REFINERS),
    "evaluate": lambda p: p.is_done("fuse"),
    "report": lambda p: p.is_done("evaluate"),
    "publish": lambda p: p.is_done("report"),
}


def chosen_points(seed: int, count: int) -> list[str]:
    """A few of the kill points, in order; the same for the same seed."""
    chosen = set(random.Random(seed).sample(list(KILL_POINTS), count))
    return [point for point in KILL_POINTS if point in chosen]


def run_and_kill(tfn: Tfn, root: Path, points: Sequence[str]) -> str:
    """Run, killed at one point after the other, then to the end; what the last run printed."""
    progress, log = Progress(root), root / "killed.log"
    made: list[str] = []
    for point in points:
        has_come = KILL_POINTS[point]
        assert not has_come(progress), f"the run was killed in {point} before it started"
        process = tfn.start("run", TINY, "--root", root, log=log)
        kill_when(process, lambda: has_come(progress), log=log)  # noqa: B023
        assert sorted(planned(log.read_text(), "made")) == sorted(made), f"killed in {point}"
        assert not progress.is_published(), f"killed too late for {point}"
        made = committed(root)
    printed = tfn("run", TINY, "--root", root)
    if points[-1] == "publish":
        assert f"nothing to run: all {len(made)} stages are made" in printed
    else:
        assert sorted(planned(printed, "made")) == sorted(made)
    return printed


def committed(root: Path) -> list[str]:
    """The names of the stages that are made."""
    stages = root / "stages"
    return [str(done.parent.parent.relative_to(stages)) for done in stages.rglob("done.json")]


def check_ends_like(undisturbed: FinishedRun, tfn: Tfn, root: Path, points: Sequence[str]) -> None:
    printed = run_and_kill(tfn, root, points)
    assert printed_hash(printed) == undisturbed.detections_hash
    again = tfn("run", TINY, "--root", root)
    assert "nothing to run" in again
    assert metrics_of(root) == metrics_of(undisturbed.root)


def metrics_of(root: Path) -> bytes:
    """All that the pipeline measured."""
    (metrics,) = (root / "stages" / "evaluate").glob("*/metrics.json")
    return metrics.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_three_times(undisturbed: FinishedRun, tfn: Tfn, tmp_path: Path) -> None:
    check_ends_like(undisturbed, tfn, tmp_path, chosen_points(SEED, NUM_QUICK_KILLS))


@pytest.mark.kill
@pytest.mark.timeout(1800)
def test_killed_in_every_stage(undisturbed: FinishedRun, tfn: Tfn, tmp_path: Path) -> None:
    check_ends_like(undisturbed, tfn, tmp_path, list(KILL_POINTS))
