"""Clips inside annotated segments, drawn and decoded for fine-tuning (paper, section 1.1).

An epoch is a seeded order of all segments. A segment is decoded once an epoch, and all clips drawn
from it come from that decoding. A clip never looks outside its segment: in one shorter than a clip,
the segment's first and last frames are held.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from tfn_jobs.frame_crop import center_square
from tfn_jobs.labelled_videos import LabelledVideo
from tfn_platform.video import read_ticks


@dataclass(frozen=True)
class ClipGeometry:
    """How a clip is cut: ticks a second, ticks a clip, pixels of the square."""

    frame_rate: Fraction
    frames_per_clip: int
    short_side: int


@dataclass(frozen=True)
class SegmentVisit:
    """One decoding of one segment, and its clips' first ticks, counted from the segment's first."""

    uri: str
    label: int
    first_tick: int
    num_ticks: int
    clip_starts: tuple[int, ...]


@dataclass(frozen=True)
class ClipBatch:
    """Frames uint8 [B, L, S, S, 3] and the classes [B] of what they show."""

    frames: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        """Check that there is a label for each clip."""
        if self.frames.ndim != 5 or self.labels.shape != self.frames.shape[:1]:
            raise ValueError(f"got frames {self.frames.shape} and labels {self.labels.shape}")


def draw_epoch(
    videos: Sequence[LabelledVideo],
    geometry: ClipGeometry,
    *,
    clips_per_segment: int,
    seed: int,
    epoch: int,
) -> list[SegmentVisit]:
    """All segments in a random order with random clips; the same for the same seed and epoch."""
    generator = np.random.default_rng([seed, epoch])
    visits = []
    for video, segment, label in _segments(videos):
        first, count = _ticks_inside(segment, geometry.frame_rate)
        room = count - geometry.frames_per_clip
        # A segment shorter than a clip: the clip may lie anywhere around it (room is negative).
        starts = generator.integers(min(room, 0), max(room, 0) + 1, size=clips_per_segment)
        visits.append(SegmentVisit(video.uri, label, first, count, tuple(starts.tolist())))
    order = generator.permutation(len(visits))
    return [visits[position] for position in order]


def spread_evenly(
    videos: Sequence[LabelledVideo], geometry: ClipGeometry, *, clips_per_segment: int
) -> list[SegmentVisit]:
    """All segments in order, with clips evenly spread over each; for validation."""
    visits = []
    for video, segment, label in _segments(videos):
        first, count = _ticks_inside(segment, geometry.frame_rate)
        room = count - geometry.frames_per_clip
        shares = [(2 * clip + 1) / (2 * clips_per_segment) for clip in range(clips_per_segment)]
        starts = tuple(round(room * share) for share in shares)
        visits.append(SegmentVisit(video.uri, label, first, count, starts))
    return visits


def read_batches(
    visits: Sequence[SegmentVisit],
    geometry: ClipGeometry,
    *,
    visits_per_batch: int,
    num_threads: int,
) -> Iterator[ClipBatch]:
    """Decode visits and join them to batches, in order, with threads that read ahead.

    Decoding leaves Python's lock to others, so threads do: nothing is pickled and nothing forked.
    """
    if num_threads == 0:
        decoded: Iterator[NDArray[np.uint8]] = (read_clips(v, geometry) for v in visits)
        yield from _join(visits, decoded, visits_per_batch)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        ahead = visits_per_batch + num_threads
        yield from _join(visits, _read_ahead(pool, visits, geometry, ahead), visits_per_batch)


def read_clips(visit: SegmentVisit, geometry: ClipGeometry) -> NDArray[np.uint8]:
    """The clips of one visit, uint8 [clips, L, S, S, 3]: the central square of each frame."""
    low = max(0, min(visit.clip_starts))
    high = min(visit.num_ticks, max(visit.clip_starts) + geometry.frames_per_clip)
    frames = read_ticks(
        visit.uri,
        frame_rate=geometry.frame_rate,
        first_tick=visit.first_tick + low,
        num_ticks=high - low,
        short_side=geometry.short_side,
    )
    frames = center_square(frames)
    ticks = np.arange(geometry.frames_per_clip)
    return np.stack(
        [frames[np.clip(start + ticks, low, high - 1) - low] for start in visit.clip_starts]
    )


def _read_ahead(
    pool: ThreadPoolExecutor, visits: Sequence[SegmentVisit], geometry: ClipGeometry, ahead: int
) -> Iterator[NDArray[np.uint8]]:
    waiting: collections.deque[Future[NDArray[np.uint8]]] = collections.deque()
    remaining = iter(visits)
    try:
        for visit in itertools.islice(remaining, ahead):
            waiting.append(pool.submit(read_clips, visit, geometry))
        while waiting:
            clips = waiting.popleft().result()
            for visit in itertools.islice(remaining, 1):
                waiting.append(pool.submit(read_clips, visit, geometry))
            yield clips
    finally:
        for future in waiting:
            future.cancel()


def _join(
    visits: Sequence[SegmentVisit], decoded: Iterator[NDArray[np.uint8]], visits_per_batch: int
) -> Iterator[ClipBatch]:
    for begin in range(0, len(visits), visits_per_batch):
        group = visits[begin : begin + visits_per_batch]
        clips = list(itertools.islice(decoded, len(group)))
        labels = [visit.label for visit in group for _ in visit.clip_starts]
        yield ClipBatch(torch.from_numpy(np.concatenate(clips)), torch.tensor(labels))


def _segments(
    videos: Sequence[LabelledVideo],
) -> Iterator[tuple[LabelledVideo, tuple[float, float], int]]:
    for video in videos:
        for segment, label in zip(video.segments.tolist(), video.labels, strict=True):
            yield video, (segment[0], segment[1]), label


def _ticks_inside(segment: tuple[float, float], frame_rate: Fraction) -> tuple[int, int]:
    """First tick inside a segment and their number; a segment between ticks gets the nearest."""
    first = int(np.ceil(segment[0] * frame_rate))
    last = int(np.floor(segment[1] * frame_rate))
    return first, max(1, last - first + 1)
