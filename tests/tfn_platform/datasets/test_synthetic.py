"""The made-up data set: the same bytes each time, and nothing in a single frame."""

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tfn_platform.datasets import read_dataset
from tfn_platform.datasets.synthetic import (
    MAX_ACTION_SHARE,
    MIN_GAP_SECONDS,
    SyntheticConfig,
    render_video,
    write_synthetic,
)
from tfn_platform.datasets.synthetic_motion import ACTIONS
from tfn_platform.video import SamplingGrid, iter_chunks, probe_video, read_ticks

TINY = SyntheticConfig(
    num_training=6,
    num_validation=3,
    seed=7,
    min_duration_seconds=4,
    max_duration_seconds=6,
    max_segment_seconds=3,
    min_short_side=32,
    max_short_side=48,
)


def test_the_same_seed_gives_the_same_bytes() -> None:
    digests = [hashlib.sha256(render_video(TINY, 4).data).hexdigest() for _ in range(2)]
    assert digests[0] == digests[1]
    other = SyntheticConfig(**{**vars(TINY), "seed": 8})
    assert render_video(other, 4).data != render_video(TINY, 4).data


def test_the_written_data_set_is_read_back(tmp_path: Path) -> None:
    annotation_path = write_synthetic(TINY, tmp_path)
    videos = read_dataset("activitynet", annotation_path)
    assert videos == [render_video(TINY, index).annotated for index in range(TINY.num_videos)]
    assert [video.subset for video in videos] == ["training"] * 6 + ["validation"] * 3
    grid = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=4, short_side=32)
    for video in videos:
        path = str(tmp_path / "videos" / f"{video.video_id}.mp4")
        assert video.duration_seconds is not None
        assert probe_video(path).duration_seconds == pytest.approx(video.duration_seconds, abs=2e-3)
        num_clips = sum(chunk.num_clips for chunk in iter_chunks(path, grid, clips_per_chunk=8))
        assert num_clips == grid.num_clips(Fraction(video.duration_seconds))


def test_segments_keep_their_distance() -> None:
    config = SyntheticConfig(num_training=40, min_short_side=32, max_short_side=32)
    lengths, num_segments = [], set()
    for index in range(40):
        video = render_video(config, index).annotated
        assert video.duration_seconds is not None
        assert {part.label for part in video.segments} == {ACTIONS[index % 6]}
        times = [t for part in video.segments for t in (part.start_seconds, part.end_seconds)]
        assert 0 <= times[0] and times[-1] <= video.duration_seconds + 1e-3
        gaps = [after - before for before, after in zip(times[1::2], times[2::2], strict=False)]
        assert all(gap >= MIN_GAP_SECONDS - 2e-3 for gap in gaps)
        own = [part.end_seconds - part.start_seconds for part in video.segments]
        assert sum(own) <= MAX_ACTION_SHARE * video.duration_seconds + 1e-2
        lengths += own
        num_segments.add(len(own))
    assert num_segments == {1, 2, 3, 4}
    assert min(lengths) < 1.6 and max(lengths) > 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must not be negative"),
        ({"min_duration_seconds": 20.0}, r"min <= max, got 20\.0\.\.16\.0"),
        ({"min_segment_seconds": 0.1}, "at least 0.5 seconds"),
        ({"min_segment_seconds": 7.5}, "at most 0.7 of the shortest video"),
        ({"min_short_side": 8}, "at least 32 pixels"),
        ({"damaged_share": 1.5}, "damaged_share"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**wrong)  # type: ignore[arg-type]


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.8, got 9"):
        render_video(TINY, 9)


def central_clips(folder: Path, num_videos: int) -> tuple[np.ndarray, np.ndarray]:
    """One clip of 32 frames inside an action of each video: [V, 32, 48, 48] luma, [V] labels."""
    config = SyntheticConfig(
        num_training=num_videos,
        num_validation=0,
        seed=11,
        min_duration_seconds=4,
        max_duration_seconds=5,
        min_segment_seconds=2.3,
        max_segment_seconds=2.8,
        max_segments=1,
        min_short_side=48,
        max_short_side=48,
    )
    clips = []
    for index in range(num_videos):
        rendered = render_video(config, index)
        path = folder / rendered.file_name
        path.write_bytes(rendered.data)
        first_tick = int(np.ceil(rendered.annotated.segments[0].start_seconds * 15))
        frames = read_ticks(
            str(path), frame_rate=Fraction(15), first_tick=first_tick, num_ticks=32, short_side=48
        )
        top, left = ((side - 48) // 2 for side in frames.shape[1:3])
        clips.append(frames[:, top : top + 48, left : left + 48].mean(axis=3))
        path.unlink()
    return np.stack(clips), np.arange(num_videos) % len(ACTIONS)


def held_out_accuracy(
    features: np.ndarray, labels: np.ndarray, *, num_training: int, penalty: float
) -> float:
    """Accuracy of a ridge classifier on the rows after the first `num_training`."""
    features = (features - features[:num_training].mean(0)) / (
        features[:num_training].std(0) + 1e-9
    )
    features = np.hstack([features, np.ones((len(features), 1))])
    known, wanted = features[:num_training], np.eye(len(ACTIONS))[labels[:num_training]]
    gram = known.T @ known + penalty * np.eye(known.shape[1])
    scores = features[num_training:] @ np.linalg.solve(gram, known.T @ wanted)
    return float((scores.argmax(axis=1) == labels[num_training:]).mean())


def motion_features(clip: np.ndarray) -> list[float]:
    """Track what stands out most from the background, then describe the track."""
    contrast = np.abs(clip - np.median(clip, axis=(1, 2), keepdims=True))
    mass = np.where(contrast > 0.6 * contrast.max(), contrast, 0) + 1e-6
    rows, columns = np.mgrid[:48, :48]
    total = mass.sum(axis=(1, 2))
    y = (mass * rows).sum(axis=(1, 2)) / total
    x = (mass * columns).sum(axis=(1, 2)) / total
    x, y, size = x - x.mean(), y - y.mean(), np.log(total)
    area = np.sum(x[:-1] * np.diff(y) - y[:-1] * np.diff(x)) / 32
    spread = np.var(x) + np.var(y) + 1e-6
    shape = [np.var(x) / spread, np.cov(x, y)[0, 1] / spread, np.tanh(area / spread * 3)]
    return [*shape, *np.square(shape), np.log(spread), np.std(size)]


def test_single_frames_do_not_give_the_action_away(tmp_path: Path) -> None:
    """Chance is 1/6 for a single frame, while the motion in the same clips tells the action."""
    num_videos, num_training = 300, 200
    clips, labels = central_clips(tmp_path, num_videos)
    frames = clips[:, ::4].reshape(-1, 48, 48)
    small = frames.reshape(-1, 12, 4, 12, 4).mean(axis=(2, 4)).reshape(len(frames), -1)
    small = np.abs(small - np.median(small, axis=1, keepdims=True))
    small /= small.max(axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    lifted = np.maximum(small @ rng.normal(size=(144, 600)) + rng.normal(size=600), 0)
    frame_labels = np.repeat(labels, 8)
    from_frames = [
        held_out_accuracy(f, frame_labels, num_training=8 * num_training, penalty=300.0)
        for f in (small, lifted)
    ]
    motion = np.array([motion_features(clip) for clip in clips])
    from_motion = held_out_accuracy(motion, labels, num_training=num_training, penalty=1.0)
    print(f"single frames {from_frames}, motion {from_motion}")
    assert max(from_frames) < 0.27
    assert from_motion > 0.8
