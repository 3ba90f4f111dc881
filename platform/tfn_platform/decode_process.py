"""Decode in a process of its own, so that a file that crashes or hangs it costs one video.

The child is `decode_child`, reached through pipes: no fork of a process that has threads, no
module of the parent's imported again, and frames travel without being pickled.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from signal import Signals
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from tfn_platform.decode_child import PREFIX
from tfn_platform.errors import ResourceError
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import ChunkLimit, DecodedVideo, FrameChunk, VideoError, VideoInfo

__all__ = ["DecodeProcess", "DecodeRequest", "DecodedVideo"]

PIPE_BYTES = 1 << 20
START_SECONDS = 120.0
"""A busy machine may need long to start a process, which is no fault of the video."""
START_ATTEMPTS = 3
KILL_SECONDS = 10.0  # A process that waits for storage dies when that answers.
LAST_WORDS_BYTES = 8000
LAST_WORDS_LINES = 4

Header = dict[str, Any]

_abandoned: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class DecodeRequest:
    """Which video to decode, and how."""

    uri: str
    """A local path or an address that pyarrow knows."""
    grid: SamplingGrid
    square: bool
    """Cut frames to their central square."""
    batch_clips: int
    """A chunk holds a multiple of this many clips, but for a video's last."""
    max_chunk_bytes: int
    """Frames of a chunk with more than one batch."""
    salvage: bool
    """Take what decodes of a damaged video."""

    def __post_init__(self) -> None:
        """Check the ranges here: the child would only be seen to end."""
        ChunkLimit(self.batch_clips, self.max_chunk_bytes)


class DecodeProcess:
    """One child process that decodes or probes one video at a time.

    It is started when it is first needed, and again after it crashed or was killed. Not safe for
    several threads at once. Close it, or use it as a context manager.
    """

    def __init__(
        self, *, stall_seconds: float = 120.0, command: Sequence[str] | None = None
    ) -> None:
        """Kill the child where it gives no sign of life for `stall_seconds` while one waits for it.

        `command` replaces `python -m tfn_platform.decode_child`; it gets this process' id as its
        last argument and must say the same.
        """
        if stall_seconds <= 0:
            raise ValueError(f"stall_seconds must be positive, got {stall_seconds}")
        self._stall_seconds = stall_seconds
        self._command = [*(command or (sys.executable, "-m", "tfn_platform.decode_child"))]
        self._child: _Child | None = None
        self._starter: ThreadPoolExecutor | None = None
        self._num_requests = 0
        self._is_busy = False

    def decode(self, request: DecodeRequest) -> Iterator[FrameChunk | DecodedVideo]:
        """The chunks of a video in order, then a `DecodedVideo`.

        A generator that is not read to its end costs the child: the next request starts another.

        Raises:
            VideoError: as `iter_chunks`, and TIMED_OUT, DECODER_CRASHED or STORAGE_ERROR.
            ResourceError: no child can be started.
        """
        grid = asdict(request.grid)
        for name in ("frame_rate", "stride_seconds"):
            grid[name] = str(grid[name])
        fields = {"kind": "decode", **vars(request), "grid": grid}
        for header, body in self._answers(request.uri, fields):
            if header["kind"] == "chunk":
                yield FrameChunk(
                    first_tick=header["first_tick"],
                    first_clip=header["first_clip"],
                    num_clips=header["num_clips"],
                    frames=body.reshape(header["shape"]),
                )
            else:
                damage = header["damage"]
                yield DecodedVideo(
                    num_clips=header["num_clips"],
                    seconds=Fraction(header["seconds"]),
                    num_frames=header["num_frames"],
                    damage=_video_error(damage) if damage else None,
                )

    def probe(self, uri: str) -> VideoInfo:
        """What `probe_video` says; raises VideoError like `decode`."""
        (answer,) = self._answers(uri, {"kind": "probe", "uri": uri})
        header, _ = answer
        del header["kind"]
        return VideoInfo(**header)

    def close(self) -> None:
        """End the child, whatever it is doing; a later request starts another."""
        if self._child:
            self._child.kill()
            self._child = None
        if self._starter:
            self._starter.shutdown()
            self._starter = None

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _answers(self, uri: str, request: Header) -> Iterator[tuple[Header, np.ndarray]]:
        """The messages that answer a request, up to the last one; kills a child left behind."""
        if self._is_busy:
            self._kill()
        self._num_requests += 1
        number = self._num_requests
        self._is_busy = True
        try:
            child = self._living_child(uri)
            child.send(request)
            while self._is_busy:
                header, body = child.receive(uri, stall_seconds=self._stall_seconds)
                self._is_busy = header["kind"] not in ("end", "info", "error")
                if header["kind"] == "error":
                    raise _video_error(header)
                if header["kind"] != "alive":
                    yield header, body
                if number != self._num_requests:
                    raise RuntimeError(f"{uri}: given up, as another video was asked for")
        finally:
            if self._is_busy and number == self._num_requests:
                self._kill()
                self._is_busy = False

    def _living_child(self, uri: str) -> "_Child":
        """The child, or a new one that is ready; where none can be had, no video is at fault."""
        if self._child and self._child.is_alive():
            return self._child
        # The kernel kills the child when the *thread* that started it ends (see decode_child):
        # that must live as long as this object.
        self._starter = self._starter or ThreadPoolExecutor(max_workers=1)
        detail = ""
        for _ in range(START_ATTEMPTS):
            self._kill()
            self._child = self._starter.submit(_Child, self._command).result()
            try:
                self._child.receive(uri, stall_seconds=max(START_SECONDS, self._stall_seconds))
            except VideoError as error:
                detail = error.detail
            else:
                return self._child
        raise ResourceError(f"no decoding process could be started: {detail}")

    def _kill(self) -> None:
        if self._child:
            self._child.kill()
        self._child = None


class _Child:
    """A running child and the pipes to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile(mode="a+b")
        self._process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        _enlarge(self._answers.fileno())

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, request: Header) -> None:
        """Write a request; a child that is gone is noticed when its answer is read."""
        self._errors.truncate(0)
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return

    def receive(self, uri: str, *, stall_seconds: float) -> tuple[Header, np.ndarray]:
        """The next message: its header and its body [n] uint8."""

        def read(num_bytes: int) -> np.ndarray:
            return self._read(num_bytes, uri, stall_seconds)

        header_bytes, body_bytes = PREFIX.unpack(read(PREFIX.size).data)
        header: Header = json.loads(read(header_bytes).tobytes())
        return header, read(body_bytes)

    def _read(self, num_bytes: int, uri: str, stall_seconds: float) -> np.ndarray:
        data = np.empty(num_bytes, np.uint8)
        num_read = 0
        while num_read < num_bytes:
            if not self._poll.poll(1000 * stall_seconds):
                raise VideoError(
                    QuarantineReason.TIMED_OUT,
                    f"{uri}: the decoding process gave no sign of life for {stall_seconds:g} "
                    f"seconds{self._last_words()}",
                )
            got = os.readv(self._answers.fileno(), [data.data[num_read:]])
            if not got:
                raise VideoError(
                    QuarantineReason.DECODER_CRASHED,
                    f"{uri}: the decoding process {self._end()}{self._last_words()}",
                )
            num_read += got
        return data

    def kill(self) -> None:
        """Kill it and take back what it held; who cannot die yet is looked after the next time."""
        _abandoned[:] = [process for process in _abandoned if process.poll() is None]
        self._process.kill()
        try:
            self._process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            _abandoned.append(self._process)
        self._requests.close()
        self._answers.close()
        self._errors.close()

    def _end(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"died of {Signals(-code).name}" if code < 0 else f"ended with exit status {code}"

    def _last_words(self) -> str:
        """What it wrote as errors, in one line: the beginning and the end if it is much."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - LAST_WORDS_BYTES))
        text = self._errors.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("Extension modules:")]
        if len(lines) > 2 * LAST_WORDS_LINES:
            lines = [*lines[:LAST_WORDS_LINES], "...", *lines[-LAST_WORDS_LINES:]]
        return "".join(f"; {line}" for line in lines)


def _enlarge(descriptor: int) -> None:
    """Let the pipe hold more, so that decoding and reading overlap: Linux only, if it may be."""
    if sys.platform == "linux":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            # The system's limit on pipes is reached: the small one works as well, if slower.
            return


def _video_error(header: Header) -> VideoError:
    return VideoError(QuarantineReason(header["reason"]), header["detail"])
