"""Ours against the textbook way, side by side: `python -m tests.benchmarks`.

Needs torch and numpy alone. Prints a table; `--out` writes the figures as JSON too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.benchmarks.measure import Comparison, Row, compare
from tests.benchmarks.memory import extra_bytes, extra_bytes_in_process_of_its_own
from tests.benchmarks.throughput import Throughput, bmn_throughput, slowfast_throughput
from tests.benchmarks.topics import TOPICS, comparisons


def main() -> None:
    """Measure what the command line asks for."""
    given = _arguments()
    # One thread, so that CPU time is that of the work and not of threads that wait.
    torch.set_num_threads(1)
    device = torch.device(given.device)
    rows = []
    print(_line("", "textbook", "ours", "ratio", "goal", "memory", "ours", "ratio", "goal"))
    for row in _rows(given.only or list(TOPICS), given, device):
        print(_row_line(row), flush=True)
        rows.append(row)
    throughput: list[Throughput] = []
    if given.throughput or device.type == "cuda":
        for measure in (bmn_throughput, slowfast_throughput):
            for line in measure(small=given.small, device=device, repeats=given.repeats):
                print(_throughput_line(line), flush=True)
                throughput.append(line)
    if given.out:
        figures = {
            "torch": torch.__version__,
            "comparisons": [dataclasses.asdict(row) for row in rows],
            "throughput": [dataclasses.asdict(line) for line in throughput],
        }
        Path(given.out).write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=TOPICS, action="append", help="may be given repeatedly")
    parser.add_argument("--repeats", type=int, default=5, help="of each side; medians are shown")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument(
        "--throughput", action="store_true", help="the device's own figures (always on cuda)"
    )
    parser.add_argument("--out", help="JSON file to write")
    given = parser.parse_args()
    if given.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {given.repeats}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("this torch sees no CUDA device")
    return given


def _rows(topics: list[str], given: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    for topic in topics:
        place = device if topic == "bmn_step" else torch.device("cpu")
        for index in range(len(comparisons(topic, small=given.small, device=place))):
            # Each is set up anew and gone before the next one: masks and models are large.
            yield _measured(topic, index, given, place)


def _measured(topic: str, index: int, given: argparse.Namespace, device: torch.device) -> Row:
    comparison: Comparison = comparisons(topic, small=given.small, device=device)[index]

    def memory(side: str) -> int:
        if device.type == "cuda":
            return extra_bytes(getattr(comparison, side), device)
        return extra_bytes_in_process_of_its_own(topic, index, side, small=given.small)

    return compare(comparison, device=device, repeats=given.repeats, extra_bytes=memory)


def _row_line(row: Row) -> str:
    share = "" if row.textbook_share == 1 else f" ({row.textbook_share:.2%} of it run)"
    cells = [
        f"{row.textbook_seconds:.4g} s",
        f"{row.our_seconds:.4g} s",
        f"{row.ratio:.1f}x",
        f"{row.goal:g}x",
    ]
    if row.memory_ratio is not None:
        assert row.textbook_bytes is not None and row.our_bytes is not None
        cells += [
            f"{row.textbook_bytes / 2**20:.0f} MiB",
            f"{row.our_bytes / 2**20:.0f} MiB",
            f"{row.memory_ratio:.1f}x",
            f"{row.memory_goal:g}x",
        ]
    met = "" if row.reached else "  below the goal"
    return _line(row.name, *cells) + met + f"\n    {row.note}{share}; {row.device}"


def _throughput_line(line: Throughput) -> str:
    text = f"{line.name:<58} {line.seconds:>9.4g} s {line.per_second:>9.4g} {line.unit}"
    if line.peak_bytes is not None:
        text += f", {line.peak_bytes / 2**30:.2f} GiB"
    if line.share_of_peak is not None:
        text += f", {line.tflops:.3g} TFLOP/s, {line.share_of_peak:.0%} of the matrix product"
    return text


def _line(name: str, *cells: str) -> str:
    return f"{name:<58}" + "".join(f"{cell:>12}" for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
