"""Video files for the decoding benchmarks, made on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TEXTURE_PIXELS = 8
LOOP_SECONDS = 8
FLIPPED_SHARE = 2e-5


@dataclass(frozen=True)
class MadeVideo:
    """What to encode: H.264 as a camera or a video site would, at a fixed rate."""

    width: int
    height: int
    seconds: int
    gop: int
    """Frames from one key frame to the next."""
    frame_rate: int = 30

    @property
    def name(self) -> str:
        """Says all that matters for decoding."""
        return f"{self.width}x{self.height}, GOP {self.gop}"


def write_video(video: MadeVideo, path: Path) -> Path:
    """A camera that moves over a coarse texture; B-frames as x264 makes them by default."""
    options = {
        "preset": "veryfast",
        "g": str(video.gop),
        "keyint_min": str(video.gop),
        # No key frames beside the ones asked for.
        "sc_threshold": "0",
        "crf": "26",
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=video.frame_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        for image in _images(video):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _images(video: MadeVideo) -> Iterator[NDArray[np.uint8]]:
    """Images [H, W, 3]: a window that wanders over a picture larger than itself."""
    rng = np.random.default_rng(0)
    margin = 64
    cells = (
        (video.height + margin) // TEXTURE_PIXELS + 1,
        (video.width + margin) // TEXTURE_PIXELS + 1,
    )
    coarse = rng.integers(0, 220, size=(*cells, 3), dtype=np.uint8)
    picture = coarse.repeat(TEXTURE_PIXELS, axis=0).repeat(TEXTURE_PIXELS, axis=1)
    for index in range(video.seconds * video.frame_rate):
        top = round(margin / 2 * (1 + np.sin(index / 23)))
        left = round(margin / 2 * (1 + np.cos(index / 17)))
        window = picture[top : top + video.height, left : left + video.width]
        yield window + np.uint8(index % 32)


def write_long_video(path: Path, *, minutes: int, frame_rate: int = 25, height: int = 1080) -> Path:
    """A 16:9 video of many minutes, cheaply: the packets of a few seconds over and over."""
    loop = path.with_suffix(".loop.mp4")
    _write_still_scene(loop, frame_rate=frame_rate, height=height)
    num_loops = minutes * 60 // LOOP_SECONDS + (minutes * 60 % LOOP_SECONDS > 0)
    with av.open(str(path), "w") as long:
        with av.open(str(loop)) as source:
            stream = long.add_stream_from_template(source.streams.video[0])
        shift = 0
        for _ in range(num_loops):
            with av.open(str(loop)) as source:
                # All of a loop lasts a whole number of the stream's units: nothing drifts.
                unit = source.streams.video[0].time_base
                assert unit is not None
                for packet in source.demux(video=0):
                    if packet.size:
                        assert packet.pts is not None and packet.dts is not None
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        long.mux(packet)
                shift += round(Fraction(LOOP_SECONDS) / unit)
    loop.unlink()
    return path


def _write_still_scene(path: Path, *, frame_rate: int, height: int) -> None:
    """One closed GOP of a smooth background with a bright square that moves."""
    width = height * 16 // 9 // 2 * 2
    options = {"preset": "veryfast", "g": "100000", "sc_threshold": "0", "bf": "0", "crf": "30"}
    ramp = np.linspace(20, 200, width, dtype=np.uint8)
    background = np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()
    side = height // 8
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=frame_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(LOOP_SECONDS * frame_rate):
            image = background.copy()
            left = (width - side) * index // (LOOP_SECONDS * frame_rate)
            image[height // 2 : height // 2 + side, left : left + side] = 240
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def flip_bits(sound: Path, damaged: Path) -> Path:
    """Copy a file with a few bytes of its pictures changed: most packets still decode."""
    data = np.frombuffer(sound.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(1)
    # The first key frame and the index at the end stay: the file is damaged, not unusable.
    low, high = len(data) // 5, len(data) * 9 // 10
    places = rng.choice(np.arange(low, high), size=max(2, round(FLIPPED_SHARE * len(data))))
    data[places] ^= rng.integers(1, 256, size=len(places), dtype=np.uint8)
    damaged.write_bytes(data.tobytes())
    return damaged
