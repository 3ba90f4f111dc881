"""Kill parts of a running extraction, at set progress, and run it again until it has finished."""

import os
import random
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.tfn_process import POLL_SECONDS, TIMEOUT_SECONDS, Tfn, kill_session, processes_of_session
from tfn_platform.feature_table import read_feature_file
from tfn_platform.store import Store

MAX_RUNS = 12
DECODING = {"decoder", "decode_actor"}
"""Runs ahead: when many videos are finished, it may be over."""


@dataclass(frozen=True)
class Kill:
    """What is killed, and when: once so many videos are finished in the storage."""

    target: str
    num_finished: int


TITLES = {
    "decoder": "tfn_platform.decode_child",
    "decode_actor": "ray::MapWorker(MapBatches(DecodeActor))",
    "model_actor": "ray::MapWorker(MapBatches(BackboneActor))",
    "raylet": "/raylet/raylet",
}
"""Targets that are one process among several, and what its command line holds."""
TARGETS = (*TITLES, "driver", "all")


def schedule(seed: int, *, num_videos: int, num_kills: int) -> list[Kill]:
    """A few kills, in order; the same for the same seed. Each target has its turn to be there."""
    rng = random.Random(seed)
    targets = [TARGETS[seed % len(TARGETS)], *rng.choices(TARGETS, k=num_kills - 1)]
    moments = sorted(rng.sample(range(int(0.5 * num_videos)), len(targets)))
    # The decoders' turn comes early, while they are at work.
    targets.sort(key=lambda target: target not in DECODING)
    return [Kill(target, moment) for target, moment in zip(targets, moments, strict=True)]


def finished_videos(root: Path) -> set[str]:
    """The videos that are over, as the storage has it."""
    store, names = Store.open(str(root)), set[str]()
    for folder in (root / "stages" / "extract").glob("*"):
        for part in sorted((folder / "features").glob("part-*.parquet")):
            relative = str(part.relative_to(root))
            names |= {video.video_id for video in read_feature_file(store, relative)}
        for fragment in (folder / "progress").glob("*.json"):
            try:
                outcomes = store.read_json(str(fragment.relative_to(root)))
            except FileNotFoundError:  # its part has just been written
                continue
            names |= {outcome["video_id"] for outcome in outcomes if outcome["num_clips"]}
    return names


@dataclass
class KilledExtraction:
    """One storage root, and the command that is run on it again and again."""

    tfn: Tfn
    root: Path
    spec: Path
    overrides: tuple[str, ...] = ()
    num_killed: int = 0

    def run(self, kills: list[Kill]) -> list[str]:
        """Run and kill until all kills are done and a run has ended by itself; what runs printed.

        Each run must begin with all that was in the storage when the one before it ended.
        """
        left, printed = list(kills), []
        for number in range(MAX_RUNS):
            known = finished_videos(self.root)
            log = self.root.with_suffix(f".{number}.log")
            code = self._run_once(left, log)
            printed.append(log.read_text())
            _check_went_on(printed[-1], known)
            if code == 0:
                # The last videos may be finished all at once, before their kill's turn.
                assert self.num_killed, f"nothing was killed:\n{printed[-1]}"
                return printed
        raise AssertionError(f"not finished after {MAX_RUNS} runs:\n{printed[-1]}")

    def _try_kill(self, left: list[Kill], process: subprocess.Popen[bytes]) -> None:
        """Kill what is next, if it is there; pass over decoders that have nothing left to do."""
        if _kill(left[0].target, process):
            self.num_killed += 1
            left.pop(0)
        elif left[0].target in DECODING and len(left) > 1 and finished_videos(self.root):
            left.pop(0)

    def _run_once(self, left: list[Kill], log: Path) -> int:
        overrides = [word for text in self.overrides for word in ("--set", text)]
        process = self.tfn.start("run", self.spec, "--root", self.root, *overrides, log=log)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, f"hangs, {left} left:\n{log.read_text()}"
                if left and len(finished_videos(self.root)) >= left[0].num_finished:
                    self._try_kill(left, process)
                time.sleep(5 * POLL_SECONDS)
        finally:
            kill_session(process)
        return process.returncode


def _kill(target: str, process: subprocess.Popen[bytes]) -> bool:
    """Kill it if it is there."""
    if target == "all":
        # Not before the extraction has begun: nothing would be in flight.
        if not _pids_of(process, TITLES["model_actor"]):
            return False
        kill_session(process)
        return True
    pids = [process.pid] if target == "driver" else _pids_of(process, TITLES[target])
    if not pids or not _pids_of(process, TITLES["model_actor"]):
        return False
    os.kill(pids[0], signal.SIGKILL)
    return True


def _pids_of(process: subprocess.Popen[bytes], title: str) -> list[int]:
    return [pid for pid in processes_of_session(process.pid) if title in _command_line(pid)]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _check_went_on(printed: str, known: set[str]) -> None:
    """What was in the storage is not done again."""
    found = re.search(r"extract: (\d+) of \d+ videos are finished", printed)
    assert not known or (found and int(found[1]) >= len(known)), f"{len(known)}:\n{printed}"
