"""The child process that decodes: `python -m tfn_platform.decode_child <parent's process id>`.

It answers requests, one JSON line each on its standard input, with messages: two lengths (header
and body, `PREFIX`), a header in JSON, and a body of raw bytes. See `decode_process` for the other
end. It imports little, so that it starts in a fraction of a second.
"""

import ctypes
import faulthandler
import json
import os
import resource
import signal
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import av

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import (
    ChunkLimit,
    DecodedVideo,
    FrameChunk,
    VideoError,
    decode_video,
    probe_video,
)

PREFIX = struct.Struct("<IQ")
"""Bytes of the header and bytes of the body."""
SECONDS_BETWEEN_SIGNS = 1.0
PR_SET_PDEATHSIG = 1

Header = dict[str, Any]


class Answer:
    """Writes messages to the parent."""

    def __init__(self, descriptor: int) -> None:
        """Own the descriptor of the pipe."""
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._last_sign = time.monotonic()

    def send(self, header: Header, body: memoryview | None = None) -> None:
        """Write a message whole; waits as long as the parent does not read."""
        text = json.dumps(header).encode()
        num_bytes = body.nbytes if body else 0
        self._write(memoryview(PREFIX.pack(len(text), num_bytes) + text))
        if body:
            self._write(body.cast("B"))
        self._last_sign = time.monotonic()

    def alive(self) -> None:
        """A sign of life where none was given for a while.

        It is called from the loop that decodes: a thread of its own would live on when that hangs.
        """
        if time.monotonic() - self._last_sign >= SECONDS_BETWEEN_SIGNS:
            self.send({"kind": "alive"})

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]


def main() -> None:
    """Answer requests until the parent closes the pipe or dies."""
    _die_with_parent(int(sys.argv[1]))
    _leave_no_traces()
    answer = Answer(os.dup(sys.stdout.fileno()))
    # What a library prints must not be read as a message.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answer.send({"kind": "ready"})
    for line in sys.stdin.buffer:
        try:
            _answer(json.loads(line), answer)
        except BrokenPipeError:
            return


def _answer(request: Header, answer: Answer) -> None:
    """Whatever is not foreseen here ends the process, and the parent says that it crashed."""
    uri = request["uri"]
    try:
        if request["kind"] == "probe":
            answer.send({"kind": "info", **asdict(probe_video(uri, alive=answer.alive))})
        else:
            _decode(request, answer)
    except VideoError as error:
        answer.send({"kind": "error", **_error_fields(error)})
    except av.FFmpegError as error:
        reason, detail = QuarantineReason.DECODER_ERROR, f"{uri}: {error.strerror}"
        answer.send({"kind": "error", "reason": reason, "detail": detail})
    except BrokenPipeError:
        raise
    except OSError as error:
        reason, detail = QuarantineReason.STORAGE_ERROR, f"{uri}: {error}"
        answer.send({"kind": "error", "reason": reason, "detail": detail})


def _decode(request: Header, answer: Answer) -> None:
    grid = request["grid"]
    for name in ("frame_rate", "stride_seconds"):
        grid[name] = Fraction(grid[name])
    items = decode_video(
        request["uri"],
        SamplingGrid(**grid),
        clips_per_chunk=ChunkLimit(request["batch_clips"], request["max_chunk_bytes"]),
        square=request["square"],
        salvage=request["salvage"],
        alive=answer.alive,
    )
    for item in items:
        if isinstance(item, FrameChunk):
            header = {
                "kind": "chunk",
                "first_tick": item.first_tick,
                "first_clip": item.first_clip,
                "num_clips": item.num_clips,
                "shape": item.frames.shape,
            }
            answer.send(header, item.frames.data)
        else:
            answer.send(_end_header(item))


def _end_header(end: DecodedVideo) -> Header:
    return {
        "kind": "end",
        "num_clips": end.num_clips,
        "seconds": str(end.seconds),
        "num_frames": end.num_frames,
        "damage": _error_fields(end.damage) if end.damage else None,
    }


def _error_fields(error: VideoError) -> Header:
    return {"reason": error.reason, "detail": error.detail}


def _die_with_parent(parent: int) -> None:
    """Leave no orphan, even while a decoder hangs and nobody reads the pipe's end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(0)


def _leave_no_traces() -> None:
    """A crash says where it was, writes no core, and out of memory it is this process that goes."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Where /proc may not be written, the kernel chooses as it does otherwise.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")


if __name__ == "__main__":
    main()
