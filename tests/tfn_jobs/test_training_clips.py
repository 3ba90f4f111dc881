"""Clips for fine-tuning: inside their segment, each once an epoch, the same for the same seed."""

import hashlib
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfn_jobs.labelled_videos import LabelledVideo
from tfn_jobs.training_clips import (
    ClipBatch,
    ClipGeometry,
    SegmentVisit,
    draw_epoch,
    read_batches,
    read_clips,
    spread_evenly,
)
from tfn_platform.datasets.synthetic import SyntheticConfig, write_synthetic
from tfn_platform.video import read_ticks

GEOMETRY = ClipGeometry(Fraction(15), 8, 32)


def labelled(segments: list[tuple[float, float]], uri: str = "a.mp4") -> LabelledVideo:
    times = torch.tensor(segments, dtype=torch.float64).reshape(-1, 2)
    return LabelledVideo(uri, uri, "training", 10.0, tuple(range(len(segments))), times)


VIDEOS = [
    labelled([(0.21, 3.97), (5.0, 5.2)], "a.mp4"),
    labelled([(1.0, 9.0), (9.1, 9.13), (0.0, 1.0)], "b.mp4"),
]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clips")
    config = SyntheticConfig(
        num_training=1,
        num_validation=0,
        min_duration_seconds=3,
        max_duration_seconds=4,
        min_short_side=40,
        max_short_side=40,
    )
    write_synthetic(config, folder)
    (path,) = sorted((folder / "videos").iterdir())
    return str(path)


def visits_of(epoch: int, *, seed: int = 0, clips: int = 3) -> list[SegmentVisit]:
    return draw_epoch(VIDEOS, GEOMETRY, clips_per_segment=clips, seed=seed, epoch=epoch)


def test_every_segment_once_an_epoch() -> None:
    segments = Counter((v.uri, v.label) for v in visits_of(0))
    assert segments == Counter((video.uri, label) for video in VIDEOS for label in video.labels)
    assert all(len(visit.clip_starts) == 3 for visit in visits_of(0))


def test_an_epoch_is_the_same_for_the_same_seed_only() -> None:
    assert visits_of(4) == visits_of(4)
    assert visits_of(4) != visits_of(5)
    assert visits_of(4) != visits_of(4, seed=1)


def test_ticks_of_a_visit_lie_inside_its_segment() -> None:
    times = {(v.uri, n): v.segments[n].tolist() for v in VIDEOS for n in v.labels}
    for visit in visits_of(0):
        start, end = times[visit.uri, visit.label]
        first, last = visit.first_tick, visit.first_tick + visit.num_ticks - 1
        if end - start > 1 / 15:
            assert start <= first / 15 and last / 15 <= end
            # And it leaves nothing out.
            assert (first - 1) / 15 < start and (last + 1) / 15 > end
        else:
            assert visit.num_ticks == 1 and abs(first / 15 - start) <= 1 / 15


def test_clips_start_anywhere_in_their_segment() -> None:
    found: dict[tuple[str, int], set[int]] = {}
    for epoch in range(60):
        for visit in visits_of(epoch):
            found.setdefault((visit.uri, visit.label), set()).update(visit.clip_starts)
    for visit in visits_of(0):
        starts, room = found[visit.uri, visit.label], visit.num_ticks - 8
        assert min(starts) == min(0, room) and max(starts) == max(0, room)


def test_validation_clips_are_evenly_spread() -> None:
    visits = spread_evenly([labelled([(0.0, 7.0)])], GEOMETRY, clips_per_segment=2)
    # 106 ticks leave room for 98 shifts: a quarter and three quarters of it.
    assert visits == [SegmentVisit("a.mp4", 0, 0, 106, (24, 74))]
    (one,) = spread_evenly([labelled([(0.0, 7.0)])], GEOMETRY, clips_per_segment=1)
    assert one.clip_starts == (49,)


@given(
    st.integers(0, 40), st.integers(1, 30), st.lists(st.integers(-7, 30), min_size=1, max_size=3)
)
def test_clips_hold_frames_of_their_segment_only(
    first: int, count: int, offsets: list[int]
) -> None:
    """Each pixel says its tick; `read_ticks` is replaced by counting."""
    room = count - 8
    starts = tuple(min(max(o, min(room, 0)), max(room, 0)) for o in offsets)

    def count_ticks(uri: str, *, first_tick: int, num_ticks: int, **_: object) -> np.ndarray:
        ticks = np.arange(first_tick, first_tick + num_ticks, dtype=np.uint8)
        return np.broadcast_to(ticks[:, None, None, None], (num_ticks, 4, 6, 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfn_jobs.training_clips.read_ticks", count_ticks)
        clips = read_clips(SegmentVisit("x", 0, first, count, starts), GEOMETRY)
    assert clips.shape == (len(starts), 8, 4, 4, 3)
    for start, clip in zip(starts, clips[..., 0, 0, 0], strict=True):
        expected = [first + min(max(start + tick, 0), count - 1) for tick in range(8)]
        assert clip.tolist() == expected


def test_clips_are_the_videos_frames(video: str) -> None:
    visit = SegmentVisit(video, 0, 12, 20, (3, 12, 0))
    clips = read_clips(visit, GEOMETRY)
    for start, clip in zip(visit.clip_starts, clips, strict=True):
        frames = read_ticks(
            video, frame_rate=Fraction(15), first_tick=12 + start, num_ticks=8, short_side=32
        )
        margin = (max(frames.shape[1:3]) - 32) // 2
        square = (
            frames[:, :, margin : margin + 32]
            if frames.shape[2] > 32
            else frames[:, margin : margin + 32]
        )
        np.testing.assert_array_equal(clip, square)


def batches_of(video: str, num_threads: int) -> list[ClipBatch]:
    visits = [SegmentVisit(video, n, 3 * n, 9 + n, (0, n // 2)) for n in range(7)]
    return list(read_batches(visits, GEOMETRY, visits_per_batch=3, num_threads=num_threads))


def test_threads_change_nothing(video: str) -> None:
    alone, ahead = batches_of(video, 0), batches_of(video, 2)
    assert [batch.labels.tolist() for batch in alone] == [
        [0, 0, 1, 1, 2, 2],
        [3, 3, 4, 4, 5, 5],
        [6, 6],
    ]
    for one, other in zip(alone, ahead, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.frames, other.frames)
    digests = {hashlib.sha256(b.frames.numpy().tobytes()).hexdigest() for b in alone}
    assert len(digests) == 3


def test_an_unread_epoch_ends_its_threads(video: str) -> None:
    visits = [SegmentVisit(video, n, n, 8, (0,)) for n in range(20)]
    batches = read_batches(visits, GEOMETRY, visits_per_batch=2, num_threads=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]


def test_missing_video_is_an_error(tmp_path: Path) -> None:
    visits = [SegmentVisit(str(tmp_path / "none.mp4"), 0, 0, 8, (0,))]
    with pytest.raises(Exception, match=r"none\.mp4"):
        list(read_batches(visits, GEOMETRY, visits_per_batch=1, num_threads=2))


def test_batches_check_their_labels() -> None:
    with pytest.raises(ValueError, match="labels"):
        ClipBatch(torch.zeros(2, 8, 4, 4, 3), torch.zeros(3))
