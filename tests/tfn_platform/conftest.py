"""Small video files made on the spot."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """A function that writes a video of frames shown at given times and returns its path."""

    def make(
        name: str,
        *,
        times_seconds: Sequence[Fraction],
        rate: Fraction | int = 25,
        codec: str = "libx264",
        size: tuple[int, int] = (64, 48),
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        time_base = Fraction(1, 90_000)
        rng = np.random.default_rng(0)
        base = rng.integers(0, 200, size=(size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        with av.open(str(path), "w", container_options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            if codec not in ("gif", "mpeg4", "mpeg1video"):
                stream.time_base = stream.codec_context.time_base = time_base
            for index, seconds in enumerate(times_seconds):
                image = np.kron(np.roll(base, index, axis=1), np.ones((8, 8, 1), np.uint8))
                image = image + np.uint8(index % 50)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                unit = stream.codec_context.time_base or 1 / Fraction(rate)
                frame.pts, frame.time_base = round(seconds / unit), unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
