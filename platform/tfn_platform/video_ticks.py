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
from tfn_platform.video_source import VideoError

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class FrameChunk:
    """The ticks of consecutive clips: frames [n, H, W, 3] uint8 RGB, clamped to the video.

    Clip k of the video is frames[grid.clip_offset(k, first_clip=first_clip) :][:frames_per_clip].
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
class DecodedVideo:
    """What follows a video's last chunk."""

    num_clips: int
    """T, all chunks together."""
    seconds: Fraction
    """The decoded duration, which T follows from."""
    num_frames: int
    """Frames that the decoder gave."""
    damage: VideoError | None = None
    """Why not all of the file could be used, where the caller takes what there is."""
    attempts: int = 1


@dataclass(frozen=True)
class ChunkLimit:
    """A chunk as large as fits: a multiple of `batch_clips` clips in at most `max_bytes`.

    One batch is always taken, however large it is.
    """

    batch_clips: int
    max_bytes: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.batch_clips < 1 or self.max_bytes < 1:
            raise ValueError(
                f"batch_clips and max_bytes must be at least 1, "
                f"got {self.batch_clips} and {self.max_bytes}"
            )

    def clips_per_chunk(self, grid: SamplingGrid, *, frame_bytes: int) -> int:
        """Clips whose ticks, the overlap counted once, fit where a frame has `frame_bytes`."""
        num_ticks = self.max_bytes // frame_bytes
        if grid.has_gaps:
            num_clips = num_ticks // grid.frames_per_clip
        else:
            num_clips = 1 + math.floor((num_ticks - grid.frames_per_clip) / grid.stride_ticks)
        return self.batch_clips * max(1, num_clips // self.batch_clips)


@dataclass(frozen=True)
class TickRun:
    """A frame and the ticks at which it is shown; times count from the first frame.

    The last frame of a video has num_ticks 0: it stands for every tick from `first_tick` on.
    """

    frame: av.VideoFrame
    first_tick: int
    num_ticks: int
    end: int
    """When the next frame is shown, or when the last one is over, in units."""
    unit_seconds: Fraction
    is_last: bool

    @property
    def end_seconds(self) -> Fraction:
        """The same in seconds."""
        return self.end * self.unit_seconds


def tick_runs(
    frames: Iterable[TimedFrame],
    frame_rate: Fraction,
    *,
    unit_seconds: Fraction,
    origin: int | None = None,
) -> Iterator[TickRun]:
    """Say of each frame at which ticks it is shown; needs to see the next frame to know.

    Args:
        frames: in order; their times are in units of `unit_seconds`.
        frame_rate: ticks a second.
        unit_seconds: of the reader that gives the frames.
        origin: the first frame's start, where `frames` begin with a later one.
    """
    ticks, units = (unit_seconds * frame_rate).as_integer_ratio()
    held: TimedFrame | None = None
    held_tick = 0
    for timed in frames:
        if origin is None:
            origin = timed.start
        end = timed.start - origin
        tick = -(-end * ticks // units)  # rounded up
        if held is not None:
            yield TickRun(held.frame, held_tick, tick - held_tick, end, unit_seconds, False)
        held, held_tick = timed, tick
    if held is not None and origin is not None:
        yield TickRun(held.frame, held_tick, 0, held.end - origin, unit_seconds, True)


class TickBuffer:
    """The images of the ticks that clips still need, and nothing older."""

    def __init__(self, grid: SamplingGrid) -> None:
        """Start before the first clip."""
        self._grid = grid
        self._next_clip = 0
        self._newest_clip = 0
        self._newest_first_tick = grid.first_tick(0)
        self._next_tick = 0
        self._images: list[Image] = []
        self._newest: Image | None = None
        self._sized_for = (-1, -1)
        self._chunk_ticks = 0

    def needs_next(self) -> bool:
        """Whether the next tick belongs to a clip, so that its image must be held."""
        grid = self._grid
        if grid.has_gaps:
            while self._next_tick >= self._newest_first_tick + grid.frames_per_clip:
                self._newest_clip += 1
                self._newest_first_tick = grid.first_tick(self._newest_clip)
        return self._next_tick >= self._newest_first_tick

    def skip(self) -> None:
        """Pass over a tick that no clip needs."""
        self._next_tick += 1

    def hold(self, image: Image) -> None:
        """Take the image of the next tick; the first one also stands for all before it."""
        if self._next_tick == 0:
            self._images = [image] * max(0, -self._grid.first_tick(0))
        if self.needs_next():
            self._images.append(image)
        self._newest = image
        self._next_tick += 1

    def has(self, num_clips: int) -> bool:
        """Whether all images of a next chunk of this many clips are here; asked at every tick."""
        return self._num_missing(num_clips) <= 0

    def take(self, num_clips: int, *, num_sure_clips: int, may_be_short: bool) -> FrameChunk | None:
        """The next chunk once its clips are sure to exist, or at the video's end what is left.

        With `may_be_short` the newest image stands for all ticks after it.
        """
        if may_be_short:
            num_clips = min(num_clips, num_sure_clips - self._next_clip)
        first_clip, end_clip = self._next_clip, self._next_clip + num_clips
        if num_clips < 1 or end_clip > num_sure_clips or self._newest is None:
            return None
        num_missing = self._num_missing(num_clips)
        if num_missing > 0 and not may_be_short:
            return None
        images = self._images + [self._newest] * max(0, num_missing)
        chunk = FrameChunk(
            first_tick=self._grid.first_tick(first_clip),
            first_clip=first_clip,
            num_clips=num_clips,
            frames=np.stack(images[: self._chunk_ticks]),
        )
        self._images = self._images[self._grid.clip_offset(end_clip, first_clip=first_clip) :]
        self._next_clip = end_clip
        return chunk

    def _num_missing(self, num_clips: int) -> int:
        """Images that a next chunk of this many clips still lacks; negative if there are more."""
        if self._sized_for != (self._next_clip, num_clips):
            self._sized_for = self._next_clip, num_clips
            self._chunk_ticks = self._grid.chunk_ticks(num_clips, first_clip=self._next_clip)
        return self._chunk_ticks - len(self._images)
