"""Peak memory of one side of a comparison, beyond what is in use before it.

On a CPU each side runs in a process of its own, `python -m tests.benchmarks.memory`, in which glibc
gives freed blocks back at once: the peak of the resident memory is then that of what is alive,
scratch space of convolutions included, and not of what the allocator keeps. It is what
`torch.cuda.max_memory_allocated` says on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
WARM_UP = 2
GIVE_BACK_BYTES = 1 << 16


def extra_bytes_in_process_of_its_own(topic: str, index: int, side: str, *, small: bool) -> int:
    """Bytes of `side` ("ours", "textbook") of the index-th comparison of a topic, on a CPU.

    Raises:
        RuntimeError: the process failed; holds what it wrote.
    """
    command = [sys.executable, "-m", "tests.benchmarks.memory", topic, str(index), side]
    command += ["--small"] if small else []
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(GIVE_BACK_BYTES)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(done.stdout)


def extra_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of `work`, measured in this process after it has run before."""
    for _ in range(WARM_UP):
        work()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Linux lets a process reset its peak.
    (PROCESS / "clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    work()
    # The kernel adds its counts of pages up now and then: little may be seen as less than none.
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{PROCESS / 'status'} has no {field}")


def main() -> None:
    """Print the bytes."""
    from tests.benchmarks.topics import TOPICS, comparisons

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=TOPICS)
    parser.add_argument("index", type=int)
    parser.add_argument("side", choices=("ours", "textbook"))
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    comparison = comparisons(given.topic, small=given.small, device=cpu)[given.index]
    print(extra_bytes(getattr(comparison, given.side), cpu))


if __name__ == "__main__":
    main()
