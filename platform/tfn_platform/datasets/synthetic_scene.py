"""Draw by lot what a synthetic video looks like: sizes, colours, textures and paths."""

from collections.abc import Sequence

import numpy as np

from tfn_platform.datasets.synthetic_frames import CHROMA_NEUTRAL, Blob, Scene, make_texture
from tfn_platform.datasets.synthetic_motion import (
    REST_SCALE,
    Floats,
    Trajectory,
    blob_states,
    slow_path,
)

ASPECT_RATIOS = ((1, 1), (4, 3), (3, 2), (16, 9), (3, 4))  # width : height


def draw_scene(
    times: Floats,
    *,
    spans: Sequence[tuple[float, float]],
    action: str,
    short_side: int,
    rng: np.random.Generator,
) -> Scene:
    """Draw looks and paths of a video with frames at `times` seconds [F].

    Only the blob's path depends on `action`, which it performs in `spans` (start, end seconds).
    """
    short = short_side
    columns, rows = ASPECT_RATIOS[rng.integers(len(ASPECT_RATIOS))]
    scale = short / min(columns, rows)
    width, height = (8 * round(scale * side / 8) for side in (columns, rows))
    shake = rng.normal(scale=rng.uniform(0, 0.008), size=(times.size, 2))
    level = rng.uniform(90, 150)
    texture_margin = short
    texture = make_texture(
        (2 * height + 2 * texture_margin, 2 * width + 2 * texture_margin),
        cell_pixels=int(rng.uniform(0.15, 0.5) * short),
        rng=rng,
    )
    view = texture_margin + 2 * short * (slow_path(times, reach=0.4, rng=rng) - shake)
    blobs = [_draw_distractor(times, shake, level, rng) for _ in range(rng.integers(1, 3))]
    blobs.append(_draw_actor(times, shake, spans, action, level, rng))
    tint = rng.uniform(-16, 16, size=2) + CHROMA_NEUTRAL
    return Scene(
        width=width,
        height=height,
        texture=level + np.float32(rng.uniform(5, 12)) * texture,
        texture_corner=np.clip(np.rint(view), 0, 2 * texture_margin).astype(np.int64),
        tint=(float(tint[0]), float(tint[1])),
        blobs=blobs,
    )


def _draw_actor(
    times: Floats,
    shake: Floats,
    spans: Sequence[tuple[float, float]],
    action: str,
    level: float,
    rng: np.random.Generator,
) -> Blob:
    """The blob that acts; it stays inside the frame's central square."""
    amplitude, radius, pulse = rng.uniform(0.15, 0.25), rng.uniform(0.08, 0.12), 0.4
    reach = 0.5 - REST_SCALE * amplitude - (1 + REST_SCALE * pulse) * radius
    home = rng.uniform(-1, 1, size=2) * max(reach, 0.03)
    states = blob_states(times, spans=spans, action=action, rng=rng)
    x, y = (home + shake + slow_path(times, reach=0.03, rng=rng) + amplitude * states[:, :2]).T
    contrast = rng.choice([-1, 1]) * rng.uniform(55, 85)
    return _blob(Trajectory(x, y, radius * (1 + pulse * states[:, 2])), level + contrast, rng)


def _draw_distractor(times: Floats, shake: Floats, level: float, rng: np.random.Generator) -> Blob:
    """A fainter blob that wanders through the whole frame, slower than any action."""
    x, y = (slow_path(times, reach=0.9, rng=rng) + shake).T
    radius = np.full_like(times, rng.uniform(0.05, 0.09))
    contrast = rng.choice([-1, 1]) * rng.uniform(20, 40)
    return _blob(Trajectory(x, y, radius), level + contrast, rng)


def _blob(path: Trajectory, luma: float, rng: np.random.Generator) -> Blob:
    blue, red = rng.uniform(-40, 40, size=2) + CHROMA_NEUTRAL
    return Blob(path, luma=float(luma), chroma_blue=float(blue), chroma_red=float(red))
