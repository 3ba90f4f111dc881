"""Decode once against once a clip, frames decoded, memory: `python -m tests.benchmarks.decoding`.

Makes its videos in a temporary folder. Prints tables; `--out` writes the figures as JSON too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from tests.benchmarks import decoding_memory
from tests.benchmarks.decoding_counts import FrameCounts, count_frames
from tests.benchmarks.decoding_memory import DecodingMemory
from tests.benchmarks.decoding_videos import MadeVideo, flip_bits, write_long_video, write_video
from tests.benchmarks.measure import Comparison, Row, compare
from tests.benchmarks.per_clip_seeking import read_clip, read_timeline
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import iter_chunks

TOPICS = ("speed", "counts", "memory")
GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=32, short_side=256)
SPEED_GOAL = 4.0
COUNT_GOAL = 1.05
MEMORY_GOAL = 1.1
# An odd number of half seconds: key frames lie a whole number of seconds apart, so an even one
# would meet them always at the same distance.
TEXTBOOK_STEP = 5


def main() -> None:
    """Measure what the command line asks for."""
    given = _arguments()
    torch.set_num_threads(1)
    topics = given.only or TOPICS
    figures: dict[str, object] = {"av": av.__version__, "clips": str(GRID)}
    with tempfile.TemporaryDirectory(prefix="tfn-decoding-") as folder:
        if "speed" in topics:
            rows = list(_speed(Path(folder), given))
            figures["speed"] = [dataclasses.asdict(row) for row in rows]
        if "counts" in topics:
            counts = list(_counts(Path(folder), given))
            figures["counts"] = [{**dataclasses.asdict(c), "ratio": c.ratio} for c in counts]
        if "memory" in topics:
            memory = list(_memory(Path(folder), given))
            figures["memory"] = [dataclasses.asdict(line) for line in memory]
    if given.out:
        Path(given.out).write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.decoding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=TOPICS, action="append", help="may be given repeatedly")
    parser.add_argument("--repeats", type=int, default=3, help="of each side; medians are shown")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 4, 16, 60])
    parser.add_argument("--small", action="store_true", help="tiny videos, to see that it runs")
    parser.add_argument("--out", help="JSON file to write")
    given = parser.parse_args()
    if given.repeats < 1 or min(given.minutes) < 1:
        parser.error("--repeats and --minutes must be at least 1")
    return given


def videos(*, small: bool) -> list[MadeVideo]:
    """Three sizes; key frames as video sites set them and as cameras do."""
    if small:
        return [MadeVideo(64, 48, seconds=5, gop=30)]
    sizes = ((320, 240), (640, 360), (1280, 720))
    return [MadeVideo(*size, seconds=40, gop=gop) for size in sizes for gop in (250, 30)]


def _speed(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    print(f"{'CPU seconds a video':<44}{'per clip':>10}{'once':>10}{'ratio':>8}{'goal':>8}")
    for video in videos(small=given.small):
        path = write_video(video, folder / "speed.mp4")
        comparison = decoding_comparison(path, video.name)
        cpu = torch.device("cpu")
        row = compare(comparison, device=cpu, repeats=given.repeats, extra_bytes=lambda side: 0)
        cells = f"{row.textbook_seconds:>8.2f} s{row.our_seconds:>8.2f} s{row.ratio:>7.1f}x"
        print(f"{row.name:<44}{cells}{_goal(row.goal, reached=row.reached)}", flush=True)
        yield row


def decoding_comparison(path: Path, name: str) -> Comparison:
    """All clips decoded once, against some of them each for itself."""
    timeline = read_timeline(path)
    num_clips = GRID.num_clips(timeline.duration_seconds)
    chosen = range(0, num_clips, TEXTBOOK_STEP)

    def ours() -> int:
        return sum(chunk.num_clips for chunk in iter_chunks(str(path), GRID, clips_per_chunk=16))

    def textbook() -> int:
        return len([read_clip(path, clip, grid=GRID, timeline=timeline) for clip in chosen])

    def check(ours: object, textbook: object) -> None:
        """The same pixels in every clip that both sides make."""
        assert ours == num_clips and textbook == len(chosen)
        for chunk in iter_chunks(str(path), GRID, clips_per_chunk=16):
            for clip in range(chunk.first_clip, chunk.first_clip + chunk.num_clips):
                if clip in chosen:
                    begin = GRID.first_tick(clip) - chunk.first_tick
                    expected = read_clip(path, clip, grid=GRID, timeline=timeline)
                    actual = chunk.frames[begin : begin + GRID.frames_per_clip]
                    np.testing.assert_array_equal(actual, expected)

    return Comparison(
        name=f"{name}, {num_clips} clips",
        ours=ours,
        textbook=textbook,
        check=check,
        goal=SPEED_GOAL,
        textbook_share=len(chosen) / num_clips,
        note="open, seek, decode and resize for each clip; one decoding thread on both sides",
    )


def _counts(folder: Path, given: argparse.Namespace) -> Iterator[FrameCounts]:
    print(f"{'frames':<44}{'needed':>10}{'decoded':>10}{'ratio':>8}{'goal':>8}")
    for video in videos(small=given.small)[:2]:
        sound = write_video(video, folder / "sound.mp4")
        damaged = flip_bits(sound, folder / "damaged.mp4")
        for path in (sound, damaged):
            counts = count_frames(path, name=f"{video.name}, {path.stem}", grid=GRID)
            cells = f"{counts.needed:>10}{counts.decoded:>10}{counts.ratio:>8.3f}"
            goal = _goal(COUNT_GOAL, reached=counts.ratio <= COUNT_GOAL)
            print(f"{counts.name:<44}{cells}{goal}  {counts.ending}", flush=True)
            yield counts


def _memory(folder: Path, given: argparse.Namespace) -> Iterator[DecodingMemory]:
    height = 90 if given.small else 1080
    bound = decoding_memory.BOUND_BYTES
    print(f"{height} pixels high; three chunks of frames: at most {bound / 2**20:.0f} MiB")
    print(f"{'minutes of video':<44}{'peak':>10}{'CPU':>10}{'ratio':>8}{'goal':>8}")
    first: DecodingMemory | None = None
    for minutes in given.minutes:
        path = write_long_video(folder / "long.mp4", minutes=minutes, height=height)
        line = decoding_memory.measure(path)
        path.unlink()
        first = first or line
        ratio = line.peak_bytes / first.peak_bytes
        cells = f"{line.peak_bytes / 2**20:>6.0f} MiB{line.cpu_seconds:>8.1f} s{ratio:>7.2f}x"
        goal = _goal(MEMORY_GOAL, reached=ratio <= MEMORY_GOAL)
        print(f"{line.minutes:<44.1f}{cells}{goal}", flush=True)
        yield line


def _goal(goal: float, *, reached: bool) -> str:
    return f"{goal:>7g}x" + ("" if reached else "  not reached")


if __name__ == "__main__":
    sys.exit(main())
