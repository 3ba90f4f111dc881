"""Peak memory of the process that decodes one video, as extraction has it decoded.

`python -m tests.benchmarks.decoding_memory FILE` prints the figures as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tfn_platform.decode_process import DecodeProcess, DecodeRequest
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import DecodedVideo

GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=32, short_side=256)
MAX_CHUNK_BYTES = 64 << 20
BATCH_CLIPS = 8
BOUND_BYTES = 3 * MAX_CHUNK_BYTES
"""The images held, the same ones stacked, the chunk before; the decoder's frames come on top."""


@dataclass(frozen=True)
class DecodingMemory:
    """Of one file, from before its first frame until after its last."""

    minutes: float
    """What the clips that were decoded cover."""
    peak_bytes: int
    """Most resident memory of the decoding process beyond what it held before."""
    start_bytes: int
    """What it held before, having opened the file once: the interpreter and its libraries."""
    cpu_seconds: float
    """Of the decoding process."""


def measure(path: Path) -> DecodingMemory:
    """Decode in a process that nothing was decoded in before, and wait for it.

    Raises:
        RuntimeError: it failed; holds what it wrote.
    """
    command = [sys.executable, "-m", "tests.benchmarks.decoding_memory", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return DecodingMemory(**json.loads(done.stdout))


def _measure_here(path: Path) -> DecodingMemory:
    request = DecodeRequest(
        uri=str(path),
        grid=GRID,
        square=False,
        batch_clips=BATCH_CLIPS,
        max_chunk_bytes=MAX_CHUNK_BYTES,
        salvage=False,
    )
    with DecodeProcess() as process:
        process.probe(str(path))
        child = Path("/proc") / str(_only_child())
        # Linux lets the peak of a process of one's own be reset.
        (child / "clear_refs").write_text("5")
        start_bytes = _status_bytes(child, "VmRSS")
        for item in process.decode(request):
            end = item
        assert isinstance(end, DecodedVideo)
        peak_bytes = _status_bytes(child, "VmHWM")
    times = os.times()
    return DecodingMemory(
        minutes=float(end.num_clips * GRID.stride_seconds / 60),
        peak_bytes=peak_bytes - start_bytes,
        start_bytes=start_bytes,
        cpu_seconds=times.children_user + times.children_system,
    )


def _only_child() -> int:
    """The process that some thread of this one has started."""
    threads = Path("/proc/self/task").iterdir()
    (child,) = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    return child


def _status_bytes(process: Path, field: str) -> int:
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{process / 'status'} has no {field}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    print(json.dumps(dataclasses.asdict(_measure_here(parser.parse_args().file))))


if __name__ == "__main__":
    main()
