"""Ticks and chunks without any file: frames are numbered images."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video_frames import TimedFrame
from tfn_platform.video_ticks import FrameChunk, TickBuffer, tick_runs


def image(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def numbers(chunk: FrameChunk | None) -> list[int]:
    assert chunk is not None
    return chunk.frames[:, 0, 0, 0].tolist()


def test_chunks_worked_by_hand() -> None:
    # Two ticks a stride, four a clip: clips begin at ticks -1, 1, 3, ...
    grid = SamplingGrid(Fraction(2), Fraction(1), frames_per_clip=4, short_side=2)
    assert [grid.first_tick(clip) for clip in range(3)] == [0, 2, 4]
    ticks = TickBuffer(grid)
    first = grid.first_tick(0)
    for tick in range(first + 5):
        ticks.hold(image(tick))
        assert not ticks.has(2)
        assert ticks.take(2, num_sure_clips=100, may_be_short=False) is None
    ticks.hold(image(first + 5))
    assert ticks.has(2)
    assert ticks.take(2, num_sure_clips=1, may_be_short=False) is None, (
        "the second clip is not sure to exist"
    )
    chunk = ticks.take(2, num_sure_clips=2, may_be_short=False)
    assert numbers(chunk) == [max(0, tick) for tick in range(first, first + 6)]
    last = ticks.take(2, num_sure_clips=3, may_be_short=True)
    assert last is not None and (last.first_clip, last.num_clips) == (2, 1)
    assert numbers(last) == [first + 4, first + 5, first + 5, first + 5]
    assert ticks.take(2, num_sure_clips=3, may_be_short=True) is None


def test_ticks_between_clips_are_not_kept() -> None:
    grid = SamplingGrid(Fraction(10), Fraction(1), frames_per_clip=2, short_side=2)
    ticks = TickBuffer(grid)
    seen = []
    for tick in range(40):
        ticks.hold(image(tick))
        if chunk := ticks.take(1, num_sure_clips=4, may_be_short=False):
            seen.append(numbers(chunk))
    assert seen == [[first, first + 1] for first in map(grid.first_tick, range(4))]


STRIDES = [Fraction(1), Fraction(3, 2), Fraction(4), Fraction(9, 2), Fraction(11)]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("frames_per_clip", [1, 4, 5])
@pytest.mark.parametrize("alignment", ["center", "start"])
@pytest.mark.parametrize("clips_per_chunk", [1, 3])
def test_each_clip_has_its_ticks(
    stride: Fraction,
    frames_per_clip: int,
    alignment: Literal["center", "start"],
    clips_per_chunk: int,
) -> None:
    """Against the ticks of each clip written down one by one, in videos of every small length."""
    grid = SamplingGrid(Fraction(1), stride, frames_per_clip, 2, alignment)
    for num_ticks in range(1, 40):
        num_clips = grid.num_clips(Fraction(num_ticks))
        seen: dict[int, list[int]] = {}
        for chunk in chunks_of(grid, num_ticks, num_clips, clips_per_chunk):
            assert chunk.num_clips <= clips_per_chunk
            assert chunk.first_tick == grid.first_tick(chunk.first_clip)
            for clip in range(chunk.first_clip, chunk.first_clip + chunk.num_clips):
                begin = grid.clip_offset(clip, first_clip=chunk.first_clip)
                seen[clip] = numbers(chunk)[begin : begin + frames_per_clip]
            size = grid.chunk_ticks(chunk.num_clips, first_clip=chunk.first_clip)
            assert (
                len(chunk.frames)
                == size
                <= max(
                    frames_per_clip * chunk.num_clips,
                    math.ceil(stride * chunk.num_clips) + frames_per_clip,
                )
            )
        expected = {
            clip: [
                min(max(grid.first_tick(clip) + n, 0), num_ticks - 1)
                for n in range(frames_per_clip)
            ]
            for clip in range(num_clips)
        }
        assert seen == expected


def chunks_of(
    grid: SamplingGrid, num_ticks: int, num_clips: int, clips_per_chunk: int
) -> Iterator[FrameChunk]:
    """What a video of as many frames as ticks gives."""
    ticks = TickBuffer(grid)
    for tick in range(num_ticks):
        if tick < num_ticks - 1 and not ticks.needs_next():
            ticks.skip()
            continue
        ticks.hold(image(tick))
        if chunk := ticks.take(clips_per_chunk, num_sure_clips=num_clips, may_be_short=False):
            yield chunk
    while chunk := ticks.take(clips_per_chunk, num_sure_clips=num_clips, may_be_short=True):
        yield chunk


@given(
    starts=st.lists(st.integers(-1000, 5000), min_size=1, max_size=20, unique=True).map(sorted),
    length=st.integers(1, 500),
    unit_seconds=st.fractions(min_value=Fraction(1, 90_000), max_value=1, max_denominator=90_000),
    rate=st.fractions(min_value=1, max_value=60, max_denominator=1001),
)
def test_runs_of_ticks_are_those_of_each_tick_by_itself(
    starts: list[int], length: int, unit_seconds: Fraction, rate: Fraction
) -> None:
    """Tick m shows the last frame that begins not after m / rate; written down frame by frame."""
    begin = starts[0]
    frames = [TimedFrame(number, start, start + length) for number, start in enumerate(starts)]  # type: ignore[arg-type]
    runs = list(tick_runs(frames, rate, unit_seconds=unit_seconds))
    assert [run.frame for run in runs] == list(range(len(starts)))
    times = [(start - begin) * unit_seconds for start in starts]
    for run, time, after in zip(runs, times, [*times[1:], None], strict=True):
        shown = run.first_tick / rate
        assert time <= shown < time + 1 / rate, "the first tick that is not before the frame"
        if after is None:
            assert run.is_last and run.num_ticks == 0
            assert run.end_seconds == time + length * unit_seconds
        else:
            assert not run.is_last and run.end_seconds == after
            assert (run.first_tick + run.num_ticks - 1) / rate < after
            assert (run.first_tick + run.num_ticks) / rate >= after


def test_frames_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="frames must be uint8"):
        FrameChunk(0, 0, 1, np.zeros((3, 4, 4, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_clips 0"):
        FrameChunk(0, 0, 0, np.zeros((3, 4, 4, 3), np.uint8))
