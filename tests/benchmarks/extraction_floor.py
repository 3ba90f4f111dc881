"""The CPU time of a whole extraction against the least that the same work can cost.

    python -m tests.benchmarks.extraction_floor [--only small|r50] [--scale 0.1] [--out FILE]

The floor is a plain loop: decode and resize each frame once, run the backbone on each clip once;
one such loop a core, so that both sides are slowed down alike by a busy machine. Ours is the
extraction job with its Ray, all its processes counted, start and end included. Both must make the
same features.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.decoding_videos import MadeVideo, write_video
from tests.tfn_process import processes_of_session

SAMPLE_SECONDS = 0.2
NUM_LOOPS = 2
GOAL = 1.15


@dataclass(frozen=True)
class Workload:
    """Copies of one video, and what is made of them."""

    name: str
    video: MadeVideo
    num_videos: int
    architecture: str
    short_side: int
    batch_clips: int


WORKLOADS = {
    "small": Workload(
        "small network, 64 px", MadeVideo(320, 240, 60, gop=250), 160, "slowfast_tiny", 64, 16
    ),
    "r50": Workload(
        "SlowFast R50, 256 px", MadeVideo(640, 360, 20, gop=250), 6, "slowfast_r50", 256, 8
    ),
}


@dataclass(frozen=True)
class Cost:
    """CPU seconds of all processes of one side.

    Attributes:
        name: of the workload.
        num_clips: of all videos.
        floor_seconds: of the plain loops, imports included.
        our_seconds: of the extraction, its Ray included.
        floor_fixed_seconds: of the plain loops on one short video each.
        our_fixed_seconds: of the extraction of one short video.
        our_wall_seconds: how long ours took.
        floor_wall_seconds: how long the loops took.
        spilled_bytes: what Ray moved from the object store to a disk.
    """

    name: str
    num_clips: int
    floor_seconds: float
    our_seconds: float
    floor_fixed_seconds: float
    our_fixed_seconds: float
    our_wall_seconds: float
    floor_wall_seconds: float
    spilled_bytes: int

    @property
    def ratio(self) -> float:
        """Ours over the floor, whole runs."""
        return self.our_seconds / self.floor_seconds

    @property
    def marginal_ratio(self) -> float:
        """The same without what a run of nothing costs: what long runs come to."""
        ours = self.our_seconds - self.our_fixed_seconds
        return ours / (self.floor_seconds - self.floor_fixed_seconds)


def measure(workload: Workload) -> Cost:
    """Run both sides on the same files, the floor first, and compare what they made."""
    with tempfile.TemporaryDirectory(prefix="tfn-floor-", dir="/tmp") as name:
        folder = Path(name)
        short = MadeVideo(**{**asdict(workload.video), "seconds": 2})
        _make_videos(folder / "one", short, 1)
        _make_videos(folder / "all", workload.video, workload.num_videos)
        _prepare(folder, workload)
        floor_fixed, _ = _floor(folder, "one")
        our_fixed, _ = _ours(folder, "one")
        floor, floor_wall = _floor(folder, "all")
        ours, our_wall = _ours(folder, "all")
        return Cost(
            workload.name,
            num_clips=_compare(folder),
            floor_seconds=floor,
            our_seconds=ours,
            floor_fixed_seconds=floor_fixed,
            our_fixed_seconds=our_fixed,
            our_wall_seconds=our_wall,
            floor_wall_seconds=floor_wall,
            spilled_bytes=json.loads((folder / "spilled.json").read_text()),
        )


def _make_videos(folder: Path, video: MadeVideo, count: int) -> None:
    folder.mkdir()
    first = write_video(video, folder / "video_000.mp4")
    for number in range(1, count):
        shutil.copyfile(first, folder / f"video_{number:03d}.mp4")


def _prepare(folder: Path, workload: Workload) -> None:
    """Weights and settings, in a process of its own: torch is not needed here."""
    settings = {
        "architecture": workload.architecture,
        "short_side": workload.short_side,
        "batch_clips": workload.batch_clips,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    _run_all([_command("weights", folder)])


def _floor(folder: Path, videos: str) -> tuple[float, float]:
    loops = [_command("loop", folder, videos, str(number)) for number in range(NUM_LOOPS)]
    return _run_all(loops)


def _ours(folder: Path, videos: str) -> tuple[float, float]:
    return _run_all([_command("extract", folder, videos)])


def _command(what: str, folder: Path, *arguments: str) -> list[str]:
    module = "tests.benchmarks.extraction_floor_sides"
    return [sys.executable, "-m", module, what, str(folder), *arguments]


def _run_all(commands: list[list[str]]) -> tuple[float, float]:
    """CPU and wall seconds of commands that run at the same time, with all that they start."""
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            command, start_new_session=True, env=environment, stdout=subprocess.DEVNULL
        )
        for command in commands
    ]
    seconds: dict[int, float] = {}
    while any(process.poll() is None for process in running):
        for process in running:
            for pid in processes_of_session(process.pid):
                seconds[pid] = max(seconds.get(pid, 0.0), _cpu_seconds(pid))
        time.sleep(SAMPLE_SECONDS)
    for process in running:
        if process.returncode:
            raise RuntimeError(f"{' '.join(process.args)} failed")  # type: ignore[arg-type]
    return sum(seconds.values()), time.monotonic() - started


def _cpu_seconds(pid: int) -> float:
    """What a process has used so far; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _compare(folder: Path) -> int:
    """Make sure that both sides made the same features; the number of clips."""
    num_clips = 0
    ours = np.load(folder / "ours.npz")
    for number in range(NUM_LOOPS):
        with np.load(folder / f"loop_{number}.npz") as loop:
            for name in loop.files:
                scale = np.abs(loop[name]).max()
                np.testing.assert_allclose(ours[name], loop[name], rtol=0, atol=2e-3 * scale)
                num_clips += len(loop[name])
    assert num_clips == sum(len(ours[name]) for name in ours.files)
    return num_clips


def main() -> None:
    """Print one row a workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=WORKLOADS, help="one of the workloads")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of videos")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON, too")
    arguments = parser.parse_args()
    table = Table(
        "work",
        "clips",
        "floor CPU s",
        "ours CPU s",
        "ratio",
        "marginal",
        "goal",
        "wall s",
        "spilled",
    )
    costs = []
    for name, workload in WORKLOADS.items():
        if arguments.only in (None, name):
            count = max(NUM_LOOPS, round(arguments.scale * workload.num_videos))
            cost = measure(Workload(**{**vars(workload), "num_videos": count}))
            costs.append(cost)
            table.add_row(
                cost.name,
                str(cost.num_clips),
                f"{cost.floor_seconds:.0f} ({cost.floor_fixed_seconds:.0f} to start)",
                f"{cost.our_seconds:.0f} ({cost.our_fixed_seconds:.0f} to start)",
                f"{cost.ratio:.2f}",
                f"{cost.marginal_ratio:.2f}",
                f"<= {GOAL}",
                f"{cost.floor_wall_seconds:.0f}, {cost.our_wall_seconds:.0f}",
                f"{cost.spilled_bytes / 2**20:.0f} MiB",
            )
    Console(width=140).print(table)
    if arguments.out:
        figures = [{**asdict(c), "ratio": c.ratio, "marginal": c.marginal_ratio} for c in costs]
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
