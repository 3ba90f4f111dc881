"""The decoding half of extraction: videos in, chunks of frames out, then what became of each.

What is imported here is imported by each decoding actor: neither torch nor a spec, which would take
longer than decoding a short video.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfn_platform.attempts import decode_patiently
from tfn_platform.decode_process import DecodedVideo, DecodeProcess, DecodeRequest
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import FrameChunk, VideoError

if TYPE_CHECKING:
    from tfn_jobs.pipeline_spec import PipelineSpec

MAX_CHUNK_BYTES = 64 << 20

TODO_SCHEMA = pa.schema(
    {"video_id": pa.string(), "uri": pa.string(), "part": pa.int32()},
)
CHUNK_SCHEMA = pa.schema(
    {
        **{field.name: field.type for field in TODO_SCHEMA},
        # Of a chunk: its clips. Of the row that ends a video: all clips that it has.
        "first_clip": pa.int32(),
        "num_clips": pa.int32(),
        "first_tick": pa.int64(),
        "height": pa.int32(),
        "width": pa.int32(),
        "frames": pa.large_binary(),
        "is_end": pa.bool_(),
        "reason": pa.string(),
        "detail": pa.string(),
        "attempts": pa.int32(),
    }
)


@dataclass(frozen=True)
class DecodeSettings:
    """What decoding takes from a spec; see `DecodeRequest` and the spec's `extraction`."""

    grid: SamplingGrid
    square: bool
    batch_clips: int
    salvage: bool
    stall_seconds: float
    max_attempts: int


def decode_settings(spec: "PipelineSpec") -> DecodeSettings:
    """Take them."""
    return DecodeSettings(
        spec.clips.grid(),
        square=spec.clips.crop == "center",
        batch_clips=spec.backbone.batch_clips,
        salvage=spec.extraction.damage == "salvage",
        stall_seconds=spec.extraction.stall_seconds,
        max_attempts=spec.extraction.max_attempts,
    )


class DecodeActor:
    """Owns one decoding process; a file that hangs or crashes it costs no more than that file."""

    def __init__(self, settings: DecodeSettings) -> None:
        """Nothing is started before the first video."""
        self._settings = settings
        self._process = DecodeProcess(stall_seconds=settings.stall_seconds)

    def __call__(self, videos: pa.Table) -> Iterator[pa.Table]:
        """Rows of TODO_SCHEMA in; a table of one CHUNK_SCHEMA row a chunk and a video's end.

        After a video that took its time-out, crashed its decoder or could not reach the storage,
        the rest is left for another call: what is known already must not wait for more of these.
        """
        for video in videos.to_pylist():
            may_go_on = yield from self._decode(video)
            if not may_go_on:
                return

    def _decode(self, video: dict[str, object]) -> Generator[pa.Table, None, bool]:
        """The video's rows; returns whether the next one may be begun."""
        request = DecodeRequest(
            uri=str(video["uri"]),
            grid=self._settings.grid,
            square=self._settings.square,
            batch_clips=self._settings.batch_clips,
            max_chunk_bytes=MAX_CHUNK_BYTES,
            salvage=self._settings.salvage,
        )
        try:
            made = decode_patiently(
                self._process, request, max_attempts=self._settings.max_attempts
            )
            for item in made:
                if isinstance(item, DecodedVideo):
                    yield _end_row(video, item.num_clips, item.damage, attempts=item.attempts)
                else:
                    yield _chunk_row(video, item)
        except VideoError as error:
            yield _end_row(video, 0, error, attempts=error.attempts)
            return not error.reason.is_transient
        return True


def _chunk_row(video: dict[str, object], chunk: FrameChunk) -> pa.Table:
    return _row(
        video,
        frames=chunk.frames,
        first_clip=chunk.first_clip,
        num_clips=chunk.num_clips,
        first_tick=chunk.first_tick,
        height=chunk.frames.shape[1],
        width=chunk.frames.shape[2],
        is_end=False,
        reason="",
        detail="",
        attempts=0,
    )


def _end_row(
    video: dict[str, object], num_clips: int, problem: VideoError | None, *, attempts: int
) -> pa.Table:
    return _row(
        video,
        frames=np.empty(0, np.uint8),
        first_clip=0,
        num_clips=num_clips,
        first_tick=0,
        height=0,
        width=0,
        is_end=True,
        reason=str(problem.reason) if problem else "",
        detail=problem.detail if problem else "",
        attempts=attempts,
    )


def _row(video: dict[str, object], *, frames: NDArray[np.uint8], **values: object) -> pa.Table:
    """One row, whose frames are not copied."""
    columns = {name: pa.array([value]) for name, value in {**video, **values}.items()}
    flat = np.ascontiguousarray(frames).reshape(-1)
    ends = pa.py_buffer(np.array([0, flat.size], np.int64))
    columns["frames"] = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, ends, pa.py_buffer(flat)]
    )
    return pa.table(
        [columns[field.name].cast(field.type) for field in CHUNK_SCHEMA], schema=CHUNK_SCHEMA
    )
