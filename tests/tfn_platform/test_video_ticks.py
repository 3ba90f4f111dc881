"""Ticks and chunks without any file: frames are numbered images."""

from fractions import Fraction

import numpy as np
import pytest

from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video_ticks import FrameChunk, TickBuffer


def image(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def numbers(chunk: FrameChunk | None) -> list[int]:
    assert chunk is not None
    return chunk.frames[:, 0, 0, 0].tolist()


def test_chunks_worked_by_hand() -> None:
    # Two ticks a stride, four a clip: clips begin at ticks -1, 1, 3, ...
    grid = SamplingGrid(Fraction(2), Fraction(1), frames_per_clip=4, short_side=2)
    assert [grid.first_tick(clip) for clip in range(3)] == [0, 2, 4]
    ticks = TickBuffer(grid, clips_per_chunk=2)
    first = grid.first_tick(0)
    for tick in range(first + 5):
        ticks.hold(image(tick))
        assert ticks.take(100, may_be_short=False) is None
    ticks.hold(image(first + 5))
    assert ticks.take(1, may_be_short=False) is None, "the second clip is not sure to exist"
    chunk = ticks.take(2, may_be_short=False)
    assert numbers(chunk) == [max(0, tick) for tick in range(first, first + 6)]
    last = ticks.take(3, may_be_short=True)
    assert last is not None and (last.first_clip, last.num_clips) == (2, 1)
    assert numbers(last) == [first + 4, first + 5, first + 5, first + 5]
    assert ticks.take(3, may_be_short=True) is None


def test_ticks_between_clips_are_not_kept() -> None:
    grid = SamplingGrid(Fraction(10), Fraction(1), frames_per_clip=2, short_side=2)
    ticks = TickBuffer(grid, clips_per_chunk=1)
    seen = []
    for tick in range(40):
        ticks.hold(image(tick))
        if chunk := ticks.take(4, may_be_short=False):
            seen.append(numbers(chunk))
    assert seen == [[first, first + 1] for first in map(grid.first_tick, range(4))]


def test_frames_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="frames must be uint8"):
        FrameChunk(0, 0, 1, np.zeros((3, 4, 4, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_clips 0"):
        FrameChunk(0, 0, 0, np.zeros((3, 4, 4, 3), np.uint8))
