"""How many frames a decoder is made to decode: `av.open` wrapped, the code under it unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import av

from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import VideoError, iter_chunks, probe_video


@dataclass
class DecodedFrames:
    """What came out of the decoders of every file opened."""

    num_frames: int = 0


@dataclass(frozen=True)
class FrameCounts:
    """Frames of one video."""

    name: str
    needed: int
    """What one pass gives that decodes each packet once, passing over those that do not decode.

    Every frame is predicted from earlier ones, so no clip can be had with fewer.
    """
    decoded: int
    """By planning (`probe_video`) and extraction (`iter_chunks`) together."""
    ending: str
    """"whole", or the reason for which the video goes into quarantine."""

    @property
    def ratio(self) -> float:
        """The goal is at most 1.05."""
        return self.decoded / self.needed


def count_frames(path: Path, *, name: str, grid: SamplingGrid) -> FrameCounts:
    """Decode a video as a run does and in one plain pass."""
    ending = "whole"
    with counting_decoder() as decoded:
        try:
            probe_video(str(path))
            for _ in iter_chunks(str(path), grid, clips_per_chunk=16):
                pass
        except VideoError as error:
            ending = str(error.reason)
    return FrameCounts(name, count_decodable(path), decoded.num_frames, ending)


def count_decodable(path: Path) -> int:
    """Frames of the first video stream, decoded packet by packet."""
    num_frames = 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                num_frames += len(packet.decode())
            except av.FFmpegError:
                continue
    return num_frames


@contextmanager
def counting_decoder() -> Iterator[DecodedFrames]:
    """While it is entered, each frame that any decoder gives is counted."""
    counted = DecodedFrames()
    really_open = av.open

    def open_counted(*args: Any, **options: Any) -> Any:
        return _Container(really_open(*args, **options), counted)

    with mock.patch("av.open", open_counted):
        yield counted


class _Wrapped:
    """Stands for an object of PyAV, whose own attributes cannot be replaced."""

    def __init__(self, wrapped: Any, counted: DecodedFrames) -> None:
        self._wrapped = wrapped
        self._counted = counted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class _Decoding(_Wrapped):
    """A packet, or a stream with which the decoder is emptied at the end."""

    def decode(self, *args: Any) -> list[av.VideoFrame]:
        frames: list[av.VideoFrame] = self._wrapped.decode(*args)
        self._counted.num_frames += len(frames)
        return frames


class _Container(_Wrapped):
    """A container whose streams and packets count what they decode."""

    def __init__(self, wrapped: Any, counted: DecodedFrames) -> None:
        super().__init__(wrapped, counted)
        self.streams = _Streams(wrapped.streams, counted)

    def __enter__(self) -> _Container:
        self._wrapped.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._wrapped.__exit__(*error)

    def demux(self, stream: Any) -> Iterator[_Decoding]:
        for packet in self._wrapped.demux(_unwrap(stream)):
            yield _Decoding(packet, self._counted)

    def seek(self, offset: int, *, stream: Any, **options: Any) -> None:
        self._wrapped.seek(offset, stream=_unwrap(stream), **options)


class _Streams(_Wrapped):
    """All streams; those of pictures count."""

    def __init__(self, wrapped: Any, counted: DecodedFrames) -> None:
        super().__init__(wrapped, counted)
        self.video = [_Decoding(stream, counted) for stream in wrapped.video]

    def __len__(self) -> int:
        return len(self._wrapped)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._wrapped)


def _unwrap(stream: Any) -> Any:
    return stream._wrapped if isinstance(stream, _Wrapped) else stream
