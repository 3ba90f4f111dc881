"""A data set made up on the spot: untrimmed videos of six motions, with exact annotations.

Each video holds one to four segments of one action, a textured background that drifts, a shaking
camera and wandering distractors. The same seed gives the same bytes. See `synthetic_motion.py` for
why a single frame says nothing about the action.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.synthetic_damage import Damage, damage_video
from tfn_platform.datasets.synthetic_frames import TICKS_PER_SECOND, draw_frames, encode_mp4
from tfn_platform.datasets.synthetic_motion import ACTIONS
from tfn_platform.datasets.synthetic_scene import draw_scene

FRAME_RATES = (Fraction(25), Fraction(30000, 1001), None)  # None: a variable rate
MIN_GAP_SECONDS = 0.8
MAX_ACTION_SHARE = 0.7


@dataclass(frozen=True)
class SyntheticConfig:
    """What to make; `seed` fixes every byte of it."""

    num_training: int = 360
    """Videos of subset "training", damaged ones included."""
    num_validation: int = 60
    """Videos of subset "validation", damaged ones included."""
    seed: int = 0
    """Any non-negative integer."""
    min_duration_seconds: float = 10.0
    """Length of the shortest video."""
    max_duration_seconds: float = 16.0
    """Length of the longest video."""
    min_segment_seconds: float = 1.2
    """Length of the shortest action."""
    max_segment_seconds: float = 8.0
    """Length of the longest action; lengths are spread evenly over their logarithm."""
    max_segments: int = 4
    """Most actions a video."""
    min_short_side: int = 96
    """Fewest pixels of a frame's short side."""
    max_short_side: int = 160
    """Most pixels of a frame's short side."""
    damaged_share: float = 0.0
    """Share (0..1) of files that are damaged; the annotation lists them like any other."""

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        if min(self.num_training, self.num_validation, self.seed) < 0:
            raise ValueError("num_training, num_validation and seed must not be negative")
        if not 2.0 <= self.min_duration_seconds <= self.max_duration_seconds:
            raise ValueError(
                "durations must be at least 2 seconds and min <= max, got "
                f"{self.min_duration_seconds}..{self.max_duration_seconds}"
            )
        if not 0.5 <= self.min_segment_seconds <= self.max_segment_seconds:
            raise ValueError(
                "segments must last at least 0.5 seconds and min <= max, got "
                f"{self.min_segment_seconds}..{self.max_segment_seconds}"
            )
        if self.min_segment_seconds > MAX_ACTION_SHARE * self.min_duration_seconds:
            raise ValueError(
                f"min_segment_seconds must be at most {MAX_ACTION_SHARE} of the shortest video, "
                f"got {self.min_segment_seconds} for {self.min_duration_seconds} seconds"
            )
        if not 32 <= self.min_short_side <= self.max_short_side:
            raise ValueError(
                "short sides must be at least 32 pixels and min <= max, got "
                f"{self.min_short_side}..{self.max_short_side}"
            )
        if self.max_segments < 1 or not 0 <= self.damaged_share <= 1:
            raise ValueError("max_segments must be positive and damaged_share in 0..1")

    @property
    def num_videos(self) -> int:
        """Training videos come first, validation videos after them."""
        return self.num_training + self.num_validation


@dataclass(frozen=True)
class RenderedVideo:
    """One file of the data set; `damage` is None for a sound one."""

    file_name: str
    data: bytes
    annotated: AnnotatedVideo
    damage: Damage | None


def render_video(config: SyntheticConfig, index: int) -> RenderedVideo:
    """Render video `index` of 0..num_videos-1; it depends on nothing but its arguments."""
    if not 0 <= index < config.num_videos:
        raise ValueError(f"index must lie in 0..{config.num_videos - 1}, got {index}")
    rng = np.random.default_rng([config.seed, index])
    subset = "training" if index < config.num_training else "validation"
    video_id = f"synthetic_{subset}_{index:05d}"
    action = ACTIONS[index % len(ACTIONS)]
    frame_rate = FRAME_RATES[rng.integers(len(FRAME_RATES))]
    ticks, declared_rate = _frame_ticks(
        rng.uniform(config.min_duration_seconds, config.max_duration_seconds), frame_rate, rng
    )
    # The last frame is shown for one frame of the declared rate.
    duration = ticks[-1] / TICKS_PER_SECOND + float(1 / declared_rate)
    spans = _draw_spans(config, duration, rng)
    # Sides in multiples of 8 keep the encoder from padding.
    side = 8 * round(rng.integers(config.min_short_side, config.max_short_side + 1) / 8)
    times = np.array(ticks) / TICKS_PER_SECOND
    scene = draw_scene(times, spans=spans, action=action, short_side=side, rng=rng)
    damage = damage_of(config, index)
    data = encode_mp4(
        draw_frames(scene),
        ticks=ticks,
        frame_rate=declared_rate,
        fast_start=damage is Damage.TRUNCATED_FAST_START,
    )
    segments = tuple(LabelledSegment(action, start, end) for start, end in spans)
    return RenderedVideo(
        file_name=f"{video_id}.mp4",
        data=data if damage is None else damage_video(data, damage, rng=rng),
        annotated=AnnotatedVideo(video_id, subset, round(duration, 3), segments),
        damage=damage,
    )


def damage_of(config: SyntheticConfig, index: int) -> Damage | None:
    """What is wrong with file `index`: `damaged_share` of all, every kind in turn."""
    order = np.random.default_rng([config.seed, config.num_videos]).permutation(config.num_videos)
    rank = int(np.flatnonzero(order == index)[0])
    num_damaged = round(config.damaged_share * config.num_videos)
    return list(Damage)[rank % len(Damage)] if rank < num_damaged else None


def write_annotations(videos: Iterable[AnnotatedVideo], path: Path) -> None:
    """Write videos in the ActivityNet layout, which `read_activitynet` reads."""
    database = {
        video.video_id: {
            "subset": video.subset,
            "duration": video.duration_seconds,
            "annotations": [
                {"label": part.label, "segment": [part.start_seconds, part.end_seconds]}
                for part in video.segments
            ],
        }
        for video in videos
    }
    path.write_text(json.dumps({"version": "synthetic", "database": database}, indent=1) + "\n")


def write_synthetic(config: SyntheticConfig, folder: Path) -> Path:
    """Render everything into `folder`/videos; return the path of `folder`/annotations.json."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    annotated = []
    for index in range(config.num_videos):
        rendered = render_video(config, index)
        (folder / "videos" / rendered.file_name).write_bytes(rendered.data)
        annotated.append(rendered.annotated)
    write_annotations(annotated, folder / "annotations.json")
    return folder / "annotations.json"


def _frame_ticks(
    duration_seconds: float, frame_rate: Fraction | None, rng: np.random.Generator
) -> tuple[list[int], Fraction]:
    """Presentation times in 1/90000 s from 0, and the rate that the file declares."""
    if frame_rate is not None:
        num_frames = round(duration_seconds * frame_rate)
        return [int(n * TICKS_PER_SECOND / frame_rate) for n in range(num_frames)], frame_rate
    lengths = rng.choice(TICKS_PER_SECOND // np.array([30, 25, 20, 15]), size=1000)
    ticks = np.concatenate([[0], np.cumsum(lengths)])
    return ticks[ticks < duration_seconds * TICKS_PER_SECOND].tolist(), Fraction(25)


def _draw_spans(
    config: SyntheticConfig, duration_seconds: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Start and end seconds, to the millisecond, of the actions of one video."""
    shortest = config.min_segment_seconds
    room = MAX_ACTION_SHARE * duration_seconds
    lengths: list[float] = []
    for num_after in reversed(range(int(rng.integers(1, config.max_segments + 1)))):
        # Each leaves room for those after it to have the shortest length and a gap.
        limit = room - sum(lengths) - MIN_GAP_SECONDS * len(lengths)
        limit -= num_after * (shortest + MIN_GAP_SECONDS)
        longest = min(config.max_segment_seconds, limit)
        if longest >= shortest:
            lengths.append(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))))
    rng.shuffle(lengths)
    spare = duration_seconds - sum(lengths) - MIN_GAP_SECONDS * (len(lengths) - 1)
    gaps = spare * rng.dirichlet(np.ones(len(lengths) + 1))
    spans, time = [], 0.0
    for gap, length in zip(gaps, lengths, strict=False):
        time += float(gap)
        spans.append((round(time, 3), round(time + length, 3)))
        time += length + MIN_GAP_SECONDS
    return spans
