"""Draw the frames of a synthetic video and encode them: numpy and one libx264 thread."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tfn_platform.datasets.synthetic_motion import Floats, Trajectory

Bytes = NDArray[np.uint8]

# One unit in the mp4's time base is this long; every frame rate that we use is a multiple of it.
TICKS_PER_SECOND = 90_000
CHROMA_NEUTRAL = 128.0


@dataclass(frozen=True)
class Blob:
    """A soft disc: where it is, and what it adds to luma and to both chromas at its centre."""

    trajectory: Trajectory
    luma: float
    chroma_blue: float
    chroma_red: float


@dataclass(frozen=True)
class Scene:
    """Everything that is to be seen in a video of F frames.

    `texture` is luma at half-pixel spacing, [2*height + margins, 2*width + margins] float32;
    `texture_corner` [F, 2] is the (x, y) of the texture's half pixel that lies in the frame's
    upper left corner; `tint` is the background's (blue, red) chroma.
    """

    width: int
    height: int
    texture: NDArray[np.float32]
    texture_corner: NDArray[np.int64]
    tint: tuple[float, float]
    blobs: Sequence[Blob]


def make_texture(
    shape: tuple[int, int], *, cell_pixels: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Smooth random luma of zero mean and unit variance: two octaves of interpolated noise."""
    total = np.zeros(shape, dtype=np.float32)
    for cell, weight in ((cell_pixels, 1.0), (max(cell_pixels // 3, 2), 0.5)):
        grid = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
        rows, columns = (np.arange(size) / cell for size in shape)
        total += weight * _mix(_mix(grid, rows).T, columns).T
    return np.asarray((total - total.mean()) / total.std(), dtype=np.float32)


def _mix(grid: NDArray[np.float32], at: Floats) -> NDArray[np.float32]:
    """Interpolate linearly between the rows of `grid`."""
    low = at.astype(np.int64)
    part = (at - low).astype(np.float32)[:, None]
    return np.asarray(grid[low] * (1 - part) + grid[low + 1] * part)


def draw_frames(scene: Scene) -> Iterator[Bytes]:
    """The frames as yuv420p, [height * 3 // 2, width] uint8 each."""
    width, height = scene.width, scene.height
    profiles = [_disc_profiles(blob.trajectory, width, height) for blob in scene.blobs]
    luma = np.empty((height, width), dtype=np.float32)
    chroma = np.empty((2, height // 2, width // 2), dtype=np.float32)
    for index, (corner_x, corner_y) in enumerate(scene.texture_corner.tolist()):
        rows = slice(corner_y, corner_y + 2 * height, 2)
        np.copyto(luma, scene.texture[rows, corner_x : corner_x + 2 * width : 2])
        chroma[0], chroma[1] = scene.tint
        for blob, (across, down) in zip(scene.blobs, profiles, strict=True):
            disc = np.minimum(down[index][:, None] * across[index], 1.0)
            luma += disc * (np.float32(blob.luma) - luma)
            small = disc[::2, ::2]
            chroma[0] += small * (np.float32(blob.chroma_blue) - chroma[0])
            chroma[1] += small * (np.float32(blob.chroma_red) - chroma[1])
        packed = np.empty((height * 3 // 2, width), dtype=np.uint8)
        packed[:height] = np.clip(luma, 16, 235)
        packed[height:] = np.clip(chroma, 16, 240).reshape(height // 2, width)
        yield packed


def _disc_profiles(
    path: Trajectory, width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors across [F, width] and down [F, height] whose product, cut at 1, is a soft disc.

    The product is a Gaussian of height 2: 1 at 0.7 radii, 1/2 at the radius.
    """
    unit = min(width, height)

    def profile(centre: Floats, size: int, *, peak: float) -> NDArray[np.float32]:
        pixels = np.arange(size) + 0.5 - size / 2
        distance = (pixels - centre[:, None] * unit) / (path.radius[:, None] * unit)
        return np.asarray(peak * np.exp(-2 * np.log(2) * distance**2), dtype=np.float32)

    return profile(path.x, width, peak=2.0), profile(path.y, height, peak=1.0)


def encode_mp4(
    frames: Iterator[Bytes],
    *,
    ticks: Sequence[int],
    frame_rate: Fraction,
    fast_start: bool = False,
) -> bytes:
    """Encode yuv420p frames shown at `ticks` (1/90000 s) as h264; the same bytes each time.

    `frame_rate` is what the file declares. With `fast_start` the index comes before the frames.
    """
    first = next(frames)
    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if fast_start else {})
    with tempfile.TemporaryDirectory() as folder:
        # The muxer reads a fast-start file again under its own name, so it has to have one.
        path = Path(folder) / "video.mp4"
        target = str(path) if fast_start else io.BytesIO()
        with av.open(target, "w", format="mp4", container_options=options) as container:
            stream = container.add_stream("libx264", rate=frame_rate)
            stream.width, stream.height = first.shape[1], first.shape[0] * 2 // 3
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
            stream.codec_context.thread_count = 1
            stream.codec_context.gop_size = 50
            stream.options = {"preset": "ultrafast", "crf": "23", "flags": "+bitexact"}
            lengths = [*np.diff(ticks).tolist(), round(TICKS_PER_SECOND / frame_rate)]
            for tick, length, packed in zip(ticks, lengths, _chain(first, frames), strict=True):
                frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
                frame.pts, frame.duration = tick, length
                frame.time_base = Fraction(1, TICKS_PER_SECOND)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes() if isinstance(target, str) else target.getvalue()


def _chain(first: Bytes, rest: Iterator[Bytes]) -> Iterator[Bytes]:
    yield first
    yield from rest
