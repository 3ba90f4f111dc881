"""From frames to ticks to clips: which frame is shown at which tick, and chunks of whole clips."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video_frames import TimedFrame

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class FrameChunk:
    """The ticks of consecutive clips: frames [n, H, W, 3] uint8 RGB, clamped to the video.

    Clip k of the video is frames[grid.first_tick(k) - first_tick :][:frames_per_clip].
    """

    first_tick: int
    first_clip: int
    num_clips: int
    frames: Image

    def __post_init__(self) -> None:
        """Check the frames' layout."""
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(
                f"frames must be uint8 [n, H, W, 3], got {self.frames.dtype} {self.frames.shape}"
            )
        if self.first_clip < 0 or self.num_clips < 1:
            raise ValueError(f"got first_clip {self.first_clip}, num_clips {self.num_clips}")


@dataclass(frozen=True)
class TickRun:
    """A frame and the ticks at which it is shown; times count from the first frame.

    The last frame of a video has num_ticks 0: it stands for every tick from `first_tick` on.
    """

    frame: av.VideoFrame
    first_tick: int
    num_ticks: int
    end_seconds: Fraction
    is_last: bool


def tick_runs(
    frames: Iterable[TimedFrame],
    frame_rate: Fraction,
    *,
    origin: Fraction | None = None,
) -> Iterator[TickRun]:
    """Say of each frame at which ticks it is shown; needs to see the next frame to know."""
    held: TimedFrame | None = None
    held_tick = 0
    for timed in frames:
        if origin is None:
            origin = timed.start_seconds
        tick = math.ceil((timed.start_seconds - origin) * frame_rate)
        if held is not None:
            end_seconds = timed.start_seconds - origin
            yield TickRun(held.frame, held_tick, tick - held_tick, end_seconds, False)
        held, held_tick = timed, tick
    if held is not None and origin is not None:
        yield TickRun(held.frame, held_tick, 0, held.end_seconds - origin, True)


class TickBuffer:
    """The images of the ticks that clips still need, and nothing older."""

    def __init__(self, grid: SamplingGrid, clips_per_chunk: int) -> None:
        """Start before the first clip."""
        self._grid = grid
        self._clips_per_chunk = clips_per_chunk
        self._next_clip = 0
        self._first_tick = grid.first_tick(0)
        self._next_tick = 0
        self._images: list[Image] = []
        self._newest: Image | None = None

    def hold(self, image: Image) -> None:
        """Take the image of the next tick; the first one also stands for all before it."""
        if self._next_tick == 0:
            self._images = [image] * max(0, -self._first_tick)
        if self._next_tick >= self._first_tick:
            self._images.append(image)
        self._newest = image
        self._next_tick += 1

    def take(self, num_sure_clips: int, *, may_be_short: bool) -> FrameChunk | None:
        """The next chunk once its clips are sure to exist, or at the video's end what is left.

        With `may_be_short` the newest image stands for all ticks after it.
        """
        num_clips = self._clips_per_chunk
        if may_be_short:
            num_clips = min(num_clips, num_sure_clips - self._next_clip)
        end_clip = self._next_clip + num_clips
        if num_clips < 1 or end_clip > num_sure_clips or self._newest is None:
            return None
        end_tick = self._grid.first_tick(end_clip - 1) + self._grid.frames_per_clip
        num_missing = end_tick - self._first_tick - len(self._images)
        if num_missing > 0 and not may_be_short:
            return None
        images = self._images + [self._newest] * max(0, num_missing)
        chunk = FrameChunk(
            first_tick=self._first_tick,
            first_clip=self._next_clip,
            num_clips=num_clips,
            frames=np.stack(images[: end_tick - self._first_tick]),
        )
        next_first_tick = self._grid.first_tick(end_clip)
        self._images = self._images[next_first_tick - self._first_tick :]
        self._first_tick, self._next_clip = next_first_tick, end_clip
        return chunk
