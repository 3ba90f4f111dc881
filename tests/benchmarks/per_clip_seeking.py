"""Clips as the field reads them: each for itself, from the key frame before it.

Open the file, seek, decode up to the clip's last tick, resize what is shown: correct, and done anew
for every clip, though neighbours share most of their frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from tfn_platform.sampling_grid import SamplingGrid

Image = NDArray[np.uint8]
BACK_SECONDS = (0, 1, 1_000_000)


@dataclass(frozen=True)
class Timeline:
    """What the header says about a video's time."""

    origin_seconds: Fraction
    """Of the first frame, on the stream's clock."""
    duration_seconds: Fraction


def read_timeline(path: Path) -> Timeline:
    """Read it once a video, as a list of videos with their lengths would hold it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None and stream.duration is not None
        origin = (stream.start_time or 0) * stream.time_base
        return Timeline(origin, stream.duration * stream.time_base)


def read_clip(path: Path, clip: int, *, grid: SamplingGrid, timeline: Timeline) -> Image:
    """Clip k, [L, H, W, 3] uint8 RGB: the frames shown at its ticks, clamped to the video."""
    first_tick = grid.first_tick(clip)
    ticks = range(first_tick, first_tick + grid.frames_per_clip)
    instants = [timeline.origin_seconds + max(tick, 0) / grid.frame_rate for tick in ticks]
    images: list[Image] = []
    resize = _Resize(grid.short_side)
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        shown: av.VideoFrame | None = None
        for frame in _frames_before(container, instants[0]):
            # The frame before this one was shown at all instants that lie before this one's start.
            while shown and len(images) < len(instants) and instants[len(images)] < _start(frame):
                images.append(resize(shown))
            shown = frame
            if len(images) == len(instants):
                break
        assert shown is not None
        while len(images) < len(instants):
            images.append(resize(shown))
    return np.stack(images)


def _frames_before(container: InputContainer, instant: Fraction) -> Iterator[av.VideoFrame]:
    """Frames from the last key frame that is shown at `instant` or before it."""
    stream = container.streams.video[0]
    assert stream.time_base is not None
    for back in BACK_SECONDS:
        container.seek(math.floor((instant - back) / stream.time_base), stream=stream)
        frames = container.decode(stream)
        first = next(frames)
        # A container finds its key frames by decoding time, which may lead to a later one.
        if _start(first) <= instant:
            break
    yield first
    yield from frames


def _start(frame: av.VideoFrame) -> Fraction:
    assert frame.pts is not None and frame.time_base is not None
    return frame.pts * frame.time_base


class _Resize:
    """Resize as the platform does; an image that is shown at several ticks is made once."""

    def __init__(self, short_side: int) -> None:
        self._short_side = short_side
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame, Image] | None = None

    def __call__(self, frame: av.VideoFrame) -> Image:
        if self._last is None or self._last[0] is not frame:
            scale = Fraction(self._short_side, min(frame.width, frame.height))
            kernel = Interpolation.AREA if scale < 1 else Interpolation.BILINEAR
            resized = self._reformatter.reformat(
                frame,
                width=math.floor(frame.width * scale + Fraction(1, 2)),
                height=math.floor(frame.height * scale + Fraction(1, 2)),
                format="rgb24",
                interpolation=kernel | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
                threads=1,
            )
            self._last = (frame, resized.to_ndarray())
        return self._last[1]
