"""torchcodec's decoder as far as it is used, made of PyAV: for machines without FFmpeg's libraries.

Installed with `sys.modules`, it lets everything around torchcodec be tested.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    data: Tensor
    pts_seconds: Tensor


class VideoDecoder:
    """All frames of a video, upright, decoded when it is opened."""

    cpu_fallback = ""

    def __init__(self, source: Any, *, stream_index: int, **_: object) -> None:
        images, seconds = [], []
        with av.open(source) as container:
            stream = container.streams[stream_index]
            assert stream.time_base is not None
            for frame in container.decode(stream):
                assert isinstance(frame, av.VideoFrame) and frame.pts is not None
                turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                images.append(torch.from_numpy(turned.copy()).permute(2, 0, 1))
                seconds.append(float(frame.pts * stream.time_base))
        self._images = torch.stack(images)
        self._seconds = torch.tensor(seconds, dtype=torch.float64)

    def get_frames_at(self, numbers: list[int]) -> Batch:
        return Batch(self._images[numbers], self._seconds[numbers])


def stand_in_modules() -> dict[str, ModuleType]:
    """What `sys.modules` is to hold."""
    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    package.ffmpeg_major_version = 7  # type: ignore[attr-defined]
    package.decoders = decoders  # type: ignore[attr-defined]
    decoders.VideoDecoder = VideoDecoder  # type: ignore[attr-defined]
    return {"torchcodec": package, "torchcodec.decoders": decoders}
