"""Decode a video into frames on the tick grid: each frame once, in bounded memory.

`iter_chunks` streams a whole video, `read_ticks` reads a few ticks for training. Both give the
frame with the largest presentation time not after a tick, upright, with its short side resized.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import dropwhile

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video_bytes import no_sign
from tfn_platform.video_frames import FrameReader, TimedFrame
from tfn_platform.video_probe import VideoInfo, check_bytes, check_whole, probe_video
from tfn_platform.video_source import VideoError, VideoSource, open_video
from tfn_platform.video_ticks import (
    ChunkLimit,
    DecodedVideo,
    FrameChunk,
    Image,
    TickBuffer,
    TickRun,
    tick_runs,
)

__all__ = [
    "ChunkLimit",
    "DecodedVideo",
    "FrameChunk",
    "SamplingGrid",
    "VideoError",
    "VideoInfo",
    "decode_video",
    "iter_chunks",
    "probe_video",
    "read_ticks",
]

SEEK_MARGINS_SECONDS = (0, 3)


def iter_chunks(
    uri: str,
    grid: SamplingGrid,
    *,
    clips_per_chunk: int | ChunkLimit,
    square: bool = False,
    salvage: bool = False,
) -> Iterator[FrameChunk]:
    """Stream all T clips of a video, `clips_per_chunk` at a time (fewer in the last chunk).

    With `square` frames are cut to their central square.

    T follows from the decoded duration, so damage shows at the end only: a VideoError may come
    after some chunks, and what was made of them is then to be thrown away. With `salvage` what
    decodes of a damaged video is all there is of it; `decode_video` tells it from a sound one.
    """
    items = decode_video(uri, grid, clips_per_chunk=clips_per_chunk, square=square, salvage=salvage)
    for item in items:
        if isinstance(item, FrameChunk):
            yield item


def decode_video(
    uri: str,
    grid: SamplingGrid,
    *,
    clips_per_chunk: int | ChunkLimit,
    square: bool = False,
    salvage: bool = False,
    alive: Callable[[], None] = no_sign,
) -> Iterator[FrameChunk | DecodedVideo]:
    """The chunks of `iter_chunks` and then what became of the video.

    `alive` is called for every packet, however little comes of it.
    """
    if isinstance(clips_per_chunk, int) and clips_per_chunk < 1:
        raise ValueError(f"clips_per_chunk must be at least 1, got {clips_per_chunk}")
    with open_video(uri, alive=alive) as source:
        reader = FrameReader(source, salvage=salvage)
        resize = _Resizer(grid.short_side, square=square)
        ticks = TickBuffer(grid)
        run: TickRun | None = None
        num_clips = 0
        for run in tick_runs(reader, grid.frame_rate, unit_seconds=reader.unit_seconds):
            if isinstance(clips_per_chunk, ChunkLimit):
                frame_bytes = resize(run.frame).nbytes
                clips_per_chunk = clips_per_chunk.clips_per_chunk(grid, frame_bytes=frame_bytes)
            image: Image | None = resize(run.frame) if run.is_last else None
            if image is not None:
                ticks.hold(image)
            for _ in range(run.num_ticks):
                if not ticks.needs_next():
                    ticks.skip()
                    continue
                image = resize(run.frame) if image is None else image
                ticks.hold(image)
                if not ticks.has(clips_per_chunk):
                    continue
                num_sure_clips = grid.num_clips(run.end_seconds)
                if chunk := ticks.take(
                    clips_per_chunk, num_sure_clips=num_sure_clips, may_be_short=False
                ):
                    num_clips += chunk.num_clips
                    yield chunk
        duration_seconds = run.end_seconds if run else Fraction(0)
        damage = _judge(source, reader, duration_seconds)
        if damage and not (salvage and duration_seconds and damage.reason.is_recoverable):
            raise damage
        assert isinstance(clips_per_chunk, int), "a frame was seen, or the reader is at fault"
        num_sure_clips = grid.num_clips(duration_seconds)
        while rest := ticks.take(clips_per_chunk, num_sure_clips=num_sure_clips, may_be_short=True):
            num_clips += rest.num_clips
            yield rest
        yield DecodedVideo(num_clips, duration_seconds, reader.num_frames, damage)


def read_ticks(
    uri: str, *, frame_rate: Fraction, first_tick: int, num_ticks: int, short_side: int
) -> Image:
    """The frames of some ticks, [num_ticks, H, W, 3] uint8 RGB, clamped to the video.

    The same pixels as `iter_chunks` gives; decoding starts at the key frame before the first tick.
    """
    if num_ticks < 1 or frame_rate <= 0:
        raise ValueError(f"got num_ticks {num_ticks}, frame_rate {frame_rate}: must be positive")
    resize = _Resizer(short_side)
    images: list[Image] = []
    with open_video(uri) as source:
        reader = FrameReader(source)
        origin = next(iter(reader), None)
        if origin is None:
            reader.check_quality()
            raise VideoError(QuarantineReason.CORRUPT_FRAMES, f"{uri}: no frame has a time")
        unit_seconds = reader.unit_seconds
        begin_seconds = max(first_tick, 0) / Fraction(frame_rate)
        frames = _frames_from(
            source, origin, begin_seconds=begin_seconds, unit_seconds=unit_seconds
        )
        for run in tick_runs(
            frames, Fraction(frame_rate), unit_seconds=unit_seconds, origin=origin.start
        ):
            begin = max(run.first_tick, first_tick) if run.first_tick > 0 else first_tick
            end = min(run.first_tick + run.num_ticks, first_tick + num_ticks)
            if run.is_last:
                end = first_tick + num_ticks
            if end > begin:
                images += [resize(run.frame)] * (end - begin)
            if len(images) == num_ticks:
                break
    return np.stack(images)


def _frames_from(
    source: VideoSource, origin: TimedFrame, *, begin_seconds: Fraction, unit_seconds: Fraction
) -> Iterator[TimedFrame]:
    """Frames from one on that is shown at `begin_seconds` after `origin` or before that.

    It has sought if that pays.
    """
    if source.can_seek and begin_seconds > 1:
        target_seconds = origin.start * unit_seconds + begin_seconds
        for margin_seconds in SEEK_MARGINS_SECONDS:
            offset = math.floor((target_seconds - margin_seconds) / source.time_base)
            source.container.seek(offset, stream=source.stream)
            # Right after a seek there may be frames whose references were left behind.
            frames = dropwhile(lambda timed: timed.frame.is_corrupt, FrameReader(source))
            first = next(frames, None)
            if first and first.start * unit_seconds <= target_seconds:
                yield first
                yield from frames
                return
    with open_video(source.uri) as again:
        yield from FrameReader(again)


class _Resizer:
    """Turn decoded frames into upright RGB images of one size, the first frame's."""

    def __init__(self, short_side: int, *, square: bool = False) -> None:
        if short_side < 1:
            raise ValueError(f"short_side must be at least 1 pixel, got {short_side}")
        self._short_side = short_side
        self._square = square
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()
        # Joined here and not for each frame, which takes longer than many a small one.
        exact = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        self._shrinking = Interpolation.AREA | exact
        self._enlarging = Interpolation.BILINEAR | exact

    def __call__(self, frame: av.VideoFrame) -> Image:
        """[H, W, 3] uint8; averages areas when it shrinks, interpolates when it enlarges."""
        short = min(frame.width, frame.height)
        if self._size is None:
            self._size = (
                (2 * frame.width * self._short_side + short) // (2 * short),
                (2 * frame.height * self._short_side + short) // (2 * short),
            )
        resized = self._reformatter.reformat(
            frame,
            width=self._size[0],
            height=self._size[1],
            format="rgb24",
            interpolation=self._shrinking if self._short_side < short else self._enlarging,
            threads=1,
        )
        image: Image = np.asarray(resized.to_ndarray(), np.uint8)
        if quarter_turns := round(frame.rotation / 90):
            image = np.rot90(image, k=quarter_turns)
        return _center_square(image) if self._square else image


def _center_square(image: Image) -> Image:
    """A copy of the central square, so that the rest of the picture is not held."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _judge(
    source: VideoSource, reader: FrameReader, duration_seconds: Fraction
) -> VideoError | None:
    """What is wrong with a video that was read to its end."""
    try:
        check_bytes(source, duration_seconds)
        reader.check_quality()
        check_whole(source, duration_seconds)
    except VideoError as error:
        return error
    if not duration_seconds:
        return VideoError(QuarantineReason.CORRUPT_FRAMES, f"{source.uri}: no frame has a time")
    return None
