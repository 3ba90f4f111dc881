"""Decode on a GPU's video engine (NVDEC) with torchcodec, on the same tick grid as `video.py`.

Which frame is shown at which tick is worked out here from the packets' times, exactly, and
torchcodec is asked for frames by number; they are resized where they are decoded. Pixels differ a
little from those of `iter_chunks`, which FFmpeg resizes before it makes RGB of them: on average by
0.2 to 2.5 levels of 255 in each of 14 real videos (64 and 256 pixels; decoded on a CPU).

Only sound, ordinary files go this way: for anything else NotForNvdecError says why, and
`decode_video` can tell what is to be had of them. An engine hides damage instead of reporting it.
"""

import importlib.util
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pyarrow import fs
from torch import Tensor

from tfn_platform.device_resize import DeviceResize
from tfn_platform.errors import TfnError
from tfn_platform.frame_plan import FramePlan, UnplannableError, plan_frames
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video_source import open_video
from tfn_platform.video_ticks import ChunkLimit, DecodedVideo

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

FRAMES_PER_CALL = 16
READ_BYTES = 1 << 20


class NotForNvdecError(TfnError):
    """A video that the GPU's engine, or this use of it, cannot decode; PyAV may."""


@dataclass(frozen=True)
class DeviceChunk:
    """A FrameChunk on a device: frames [n, H, W, 3] uint8 RGB, clamped to the video.

    Clip k of the video is frames[grid.clip_offset(k, first_clip=first_clip) :][:frames_per_clip].
    """

    first_tick: int
    first_clip: int
    num_clips: int
    frames: Tensor

    def __post_init__(self) -> None:
        """Check the frames' layout."""
        shape = tuple(self.frames.shape)
        if len(shape) != 4 or shape[3] != 3 or self.frames.dtype != torch.uint8:
            raise ValueError(f"frames must be uint8 [n, H, W, 3], got {self.frames.dtype} {shape}")


def why_not_nvdec() -> str | None:
    """Why no video can be decoded on this machine's GPU; None where nothing speaks against it.

    Whether the engine knows a video's codec shows when that video is opened.
    """
    if importlib.util.find_spec("torchcodec") is None:
        return 'torchcodec is not installed: pip install "temporal-fusion-network[nvdec]"'
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        import torchcodec
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchcodec cannot be loaded: {str(error).splitlines()[0]}"
    if torchcodec.ffmpeg_major_version is None:
        return "torchcodec finds no FFmpeg: install its shared libraries (package ffmpeg)"
    return None


def decode_on_device(
    uri: str,
    grid: SamplingGrid,
    *,
    clips_per_chunk: int | ChunkLimit,
    device: torch.device,
    square: bool = False,
) -> Iterator[DeviceChunk | DecodedVideo]:
    """The chunks of a video as tensors on `device`, and then what became of it.

    Args:
        uri: a local path or any address that pyarrow knows.
        grid: which ticks make up which clip.
        clips_per_chunk: T clips come so many at a time, fewer in the last chunk.
        device: a CUDA device; on "cpu" torchcodec decodes with FFmpeg's own decoders.
        square: cut frames to their central square.

    Raises:
        VideoError: the file cannot be opened or has no video.
        NotForNvdecError: it can, but is not for this way. Mostly before the first chunk; what was
            made of chunks that came is to be thrown away.
        OSError: the storage fails.
    """
    with open_video(uri) as source:
        try:
            plan = plan_frames(source)
        except UnplannableError as error:
            raise NotForNvdecError(f"{uri}: {error}") from error
    with _open_bytes(uri) as file:
        frames = _Frames(_open_decoder(uri, file, plan, device), plan, uri)
        held = _Held(frames, DeviceResize(grid.short_side, square=square))
        if isinstance(clips_per_chunk, ChunkLimit):
            frame_bytes = held.take([0]).numel()
            clips_per_chunk = clips_per_chunk.clips_per_chunk(grid, frame_bytes=frame_bytes)
        num_clips = grid.num_clips(plan.duration_seconds)
        for first_clip in range(0, num_clips, clips_per_chunk):
            chunk_clips = min(clips_per_chunk, num_clips - first_clip)
            ticks = _chunk_ticks(grid, first_clip, chunk_clips)
            numbers = plan.frames_at(ticks, frame_rate=grid.frame_rate)
            yield DeviceChunk(ticks[0], first_clip, chunk_clips, held.take(numbers))
    yield DecodedVideo(num_clips, plan.duration_seconds, len(plan.pts))


class _Frames:
    """Frames of one video by number."""

    def __init__(self, decoder: "VideoDecoder", plan: FramePlan, uri: str) -> None:
        self._decoder = decoder
        self._plan = plan
        self._uri = uri

    def read(self, numbers: list[int]) -> Tensor:
        """Decode frames [n, 3, H, W] uint8; sees to it that they are the ones asked for."""
        try:
            batch = self._decoder.get_frames_at(numbers)
        except (RuntimeError, IndexError) as error:
            raise NotForNvdecError(f"{self._uri}: {_first_line(error)}") from error
        unit = self._plan.time_base
        expected = torch.tensor([float(self._plan.pts[n] * unit) for n in numbers]).double()
        if (batch.pts_seconds - expected).abs().max() > float(unit) / 2:
            raise NotForNvdecError(
                f"{self._uri}: frames came at {batch.pts_seconds.tolist()} seconds, "
                f"asked for {expected.tolist()}"
            )
        images: Tensor = batch.data
        return images


class _Held:
    """The resized frames that the next chunk shares with the last one are not decoded again."""

    def __init__(self, frames: _Frames, resize: DeviceResize) -> None:
        self._frames = frames
        self._resize = resize
        self._numbers: list[int] = []
        self._images: list[Tensor] = []

    def take(self, numbers: list[int]) -> Tensor:
        """The images [n, H, W, 3] of frames in ascending order, some of them several times."""
        wanted = sorted(set(numbers))
        known = dict(zip(self._numbers, self._images, strict=True))
        missing = [number for number in wanted if number not in known]
        for begin in range(0, len(missing), FRAMES_PER_CALL):
            some = missing[begin : begin + FRAMES_PER_CALL]
            known.update(zip(some, self._resize(self._frames.read(some)), strict=True))
        self._numbers = wanted
        self._images = [known[number] for number in wanted]
        return torch.stack([known[number] for number in numbers])


def _chunk_ticks(grid: SamplingGrid, first_clip: int, num_clips: int) -> list[int]:
    """The ticks that a chunk of clips holds, in order."""
    ticks: list[int] = []
    for clip in range(first_clip, first_clip + num_clips):
        offset = grid.clip_offset(clip, first_clip=first_clip)
        first_tick = grid.first_tick(clip)
        ticks[offset:] = range(first_tick, first_tick + grid.frames_per_clip)
    return ticks


def _open_decoder(uri: str, file: Any, plan: FramePlan, device: torch.device) -> "VideoDecoder":
    from torchcodec.decoders import VideoDecoder

    try:
        decoder = VideoDecoder(
            file,
            stream_index=plan.stream_index,
            device=device,
            # Spares it a pass of its own over the file.
            custom_frame_mappings=json.dumps({"frames": plan.mapping()}),
        )
    except (RuntimeError, ValueError) as error:
        raise NotForNvdecError(f"{uri}: {_first_line(error)}") from error
    if device.type == "cuda" and decoder.cpu_fallback:
        raise NotForNvdecError(f"{uri}: {decoder.cpu_fallback}")
    return decoder


@contextmanager
def _open_bytes(uri: str) -> Iterator[Any]:
    """What torchcodec reads from: a path, or an object that reads from the storage."""
    if "://" not in uri:
        yield uri
        return
    filesystem, path = fs.FileSystem.from_uri(uri)
    # Demuxers read in small pieces, each of which would be a request to an object store.
    with io.BufferedReader(filesystem.open_input_file(path), READ_BYTES) as file:
        yield file


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
