"""Decoding in a child: the same frames as here, and no file that harms more than itself."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pyarrow import fs

from tests.damaged_videos import plant_damaged, plant_usable
from tests.s3_server import s3_endpoint, s3_root
from tfn_platform import decode_process
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.decode_process import DecodedVideo, DecodeProcess, DecodeRequest
from tfn_platform.errors import ResourceError
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video import (
    ChunkLimit,
    FrameChunk,
    SamplingGrid,
    VideoError,
    decode_video,
    probe_video,
)

__all__ = ["s3_endpoint", "s3_root"]

GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=32, short_side=40)
BATCH_CLIPS = 2
CHUNK_BYTES = 600_000
FAULTY_READER = Path(__file__).resolve().parent.parent / "faulty_reader"


def request_for(path: Path | str, *, salvage: bool = False, square: bool = True) -> DecodeRequest:
    return DecodeRequest(
        uri=str(path),
        grid=GRID,
        square=square,
        batch_clips=BATCH_CLIPS,
        max_chunk_bytes=CHUNK_BYTES,
        salvage=salvage,
    )


def reason_of(process: DecodeProcess, path: Path) -> QuarantineReason:
    with pytest.raises(VideoError) as caught:
        list(process.decode(request_for(path)))
    assert path.name in caught.value.detail
    return caught.value.reason


@pytest.fixture(scope="module")
def good() -> bytes:
    config = SyntheticConfig(
        num_training=1, min_duration_seconds=4, max_duration_seconds=5, min_short_side=48
    )
    return render_video(config, 0).data


@pytest.fixture
def video(tmp_path: Path, good: bytes) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(good)
    return path


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(stall_seconds=60) as process:
        yield process


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodeProcess]:
    """A process whose reader hangs and crashes on request: see tests/faulty_reader."""
    monkeypatch.syspath_prepend(str(FAULTY_READER))
    with DecodeProcess(stall_seconds=2) as process:
        yield process


def assert_equals_here(process: DecodeProcess, path: Path, *, square: bool) -> DecodedVideo:
    """The items of the child and those decoded in this process are the same, bit by bit."""
    expected = decode_video(
        str(path), GRID, clips_per_chunk=ChunkLimit(BATCH_CLIPS, CHUNK_BYTES), square=square
    )
    actual = process.decode(request_for(path, square=square))
    for ours, theirs in zip(actual, expected, strict=True):
        if isinstance(theirs, DecodedVideo):
            assert ours == theirs
            return theirs
        assert isinstance(ours, FrameChunk)
        assert (ours.first_tick, ours.first_clip) == (theirs.first_tick, theirs.first_clip)
        assert ours.num_clips == theirs.num_clips
        np.testing.assert_array_equal(ours.frames, theirs.frames)
    raise AssertionError("the last item must be a DecodedVideo")


@pytest.mark.parametrize("square", [False, True])
def test_frames_are_those_decoded_here(process: DecodeProcess, video: Path, square: bool) -> None:
    end = assert_equals_here(process, video, square=square)
    assert end.num_clips == GRID.num_clips(end.seconds) and end.damage is None
    assert process.probe(str(video)) == probe_video(str(video))


def test_real_videos_decode_as_here(process: DecodeProcess, shared_dir: Path) -> None:
    paths = sorted((shared_dir / "data" / "videos").iterdir())
    assert len(paths) >= 17
    for path in paths:
        assert_equals_here(process, path, square=True)
        assert process.probe(str(path)) == probe_video(str(path))


def test_videos_in_a_bucket(s3_root: str, video: Path) -> None:
    """The same frames, though read through the network, and an absent one is told apart."""
    filesystem, folder = fs.FileSystem.from_uri(s3_root)
    filesystem.create_dir(folder)
    with filesystem.open_output_stream(f"{folder}/video.mp4") as target:
        target.write(video.read_bytes())
    # A child of its own, as the addresses of servers are in the environment.
    with DecodeProcess() as process:
        there = list(process.decode(request_for(f"{s3_root}/video.mp4")))
        here = list(process.decode(request_for(video)))
        assert there[-1] == here[-1]
        for ours, theirs in zip(there[:-1], here[:-1], strict=True):
            assert isinstance(ours, FrameChunk) and isinstance(theirs, FrameChunk)
            np.testing.assert_array_equal(ours.frames, theirs.frames)
        with pytest.raises(VideoError) as caught:
            process.probe(f"{s3_root}/missing.mp4")
    assert caught.value.reason is QuarantineReason.MISSING_FILE


def test_a_path_is_no_more_than_a_path(process: DecodeProcess, tmp_path: Path, good: bytes) -> None:
    for name in ("a\nb.mp4", '"}.mp4', "ü%20 .mp4", "http:.mp4"):
        (tmp_path / name).write_bytes(good)
        assert process.probe(str(tmp_path / name)).width > 0


def test_every_kind_of_damage_has_its_reason(
    process: DecodeProcess, tmp_path: Path, good: bytes
) -> None:
    expected = plant_damaged(tmp_path / "videos", good=good)
    assert len(expected) >= 30
    assert {name: reason_of(process, tmp_path / "videos" / name) for name in expected} == expected
    for name in plant_usable(tmp_path / "usable", good=good):
        *chunks, end = process.decode(request_for(tmp_path / "usable" / name))
        assert isinstance(end, DecodedVideo) and end.num_clips >= 7 and chunks


def test_recoverable_damage_is_used_as_far_as_it_goes(
    process: DecodeProcess, tmp_path: Path, good: bytes
) -> None:
    for name, reason in plant_damaged(tmp_path / "videos", good=good).items():
        path = tmp_path / "videos" / name
        # Nothing decodes of garbled_frames.mp4, so that there is nothing to recover.
        if not reason.is_recoverable or name == "garbled_frames.mp4":
            with pytest.raises(VideoError) as caught:
                list(process.decode(request_for(path, salvage=True)))
            assert caught.value.reason is reason
            continue
        *chunks, end = process.decode(request_for(path, salvage=True))
        assert isinstance(end, DecodedVideo) and end.damage is not None, name
        assert end.damage.reason is reason
        assert end.num_clips == GRID.num_clips(end.seconds) >= 1
        assert sum(c.num_clips for c in chunks if isinstance(c, FrameChunk)) == end.num_clips


def test_a_hang_costs_the_video_and_not_the_process(
    faulty: DecodeProcess, video: Path, good: bytes
) -> None:
    hanging = video.with_name("hang.mp4")
    hanging.write_bytes(good)
    begin = time.monotonic()
    assert reason_of(faulty, hanging) is QuarantineReason.TIMED_OUT
    with pytest.raises(VideoError, match="no sign of life for 2 seconds"):
        faulty.probe(str(hanging))
    assert 4 <= time.monotonic() - begin < 30
    assert_equals_here(faulty, video, square=True)


def test_a_crash_costs_the_video_and_not_the_process(
    faulty: DecodeProcess, video: Path, good: bytes
) -> None:
    crashing = video.with_name("crash.mp4")
    crashing.write_bytes(good)
    with pytest.raises(VideoError, match="died of SIGABRT.*_faulty_open") as caught:
        list(faulty.decode(request_for(crashing)))
    assert caught.value.reason is QuarantineReason.DECODER_CRASHED
    assert_equals_here(faulty, video, square=True)


def test_slow_consumers_are_not_taken_for_a_hang(video: Path) -> None:
    with DecodeProcess(stall_seconds=1) as process:
        items = []
        for item in process.decode(request_for(video)):
            items.append(item)
            if len(items) < 3:
                time.sleep(1.5)
    assert isinstance(items[-1], DecodedVideo)


def test_slow_decoding_is_not_taken_for_a_hang(tmp_path: Path, video: Path) -> None:
    """Each packet takes long, and signs of life come in between."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from tfn_platform import video_frames\n"
        "def slow(alive):\n"
        "    time.sleep(0.05)\n"
        "    alive()\n"
        "packets = video_frames.FrameReader._packets\n"
        "def slow_packets(self):\n"
        "    for packet in packets(self):\n"
        "        time.sleep(0.05)\n"
        "        yield packet\n"
        "video_frames.FrameReader._packets = slow_packets\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        request = DecodeRequest(str(video), GRID, True, 1000, 1, False)
        with DecodeProcess(stall_seconds=2.5) as process:
            begin = time.monotonic()
            *_, end = process.decode(request)
    assert time.monotonic() - begin > 3
    assert isinstance(end, DecodedVideo)


def test_slow_probing_is_not_taken_for_a_hang(
    tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All packets are read of a file that declares nothing, and there was no sign of life."""
    path = tmp_path / "live.mkv"
    with (
        av.open(io.BytesIO(good)) as whole,
        av.open(str(path), "w", container_options={"live": "1"}) as live,
    ):
        stream = live.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                live.mux(packet)
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from contextlib import contextmanager\n"
        "from dataclasses import replace\n"
        "from tfn_platform import video_probe\n"
        "whole = video_probe.open_video\n"
        "class Slow:\n"
        "    def __init__(self, container): self.container = container\n"
        "    def __getattr__(self, name): return getattr(self.container, name)\n"
        "    def demux(self, stream):\n"
        "        for packet in self.container.demux(stream):\n"
        "            time.sleep(0.05)\n"
        "            yield packet\n"
        "@contextmanager\n"
        "def slow(uri, **options):\n"
        "    with whole(uri, **options) as source:\n"
        "        yield replace(source, container=Slow(source.container))\n"
        "video_probe.open_video = slow\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with DecodeProcess(stall_seconds=2.5) as process:
        begin = time.monotonic()
        assert process.probe(str(path)).duration_seconds > 3
    assert time.monotonic() - begin > 3


def test_an_abandoned_video_leaves_the_process_usable(process: DecodeProcess, video: Path) -> None:
    items = process.decode(request_for(video))
    next(items)
    items.close()
    assert_equals_here(process, video, square=True)
    left_behind = process.decode(request_for(video))
    next(left_behind)
    assert_equals_here(process, video, square=True)
    with pytest.raises(RuntimeError, match="another video was asked for"):
        next(left_behind)
    assert_equals_here(process, video, square=True)


def test_a_child_killed_between_videos_is_replaced(video: Path) -> None:
    with DecodeProcess() as process:
        process.probe(str(video))
        assert process._child
        first = process._child._process
        first.kill()
        first.wait()
        assert_equals_here(process, video, square=True)
    assert process._child is None


def test_a_child_that_does_not_die_is_left_behind(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel kills nobody who waits for storage: to wait for that might take for ever."""
    monkeypatch.setattr(decode_process, "KILL_SECONDS", 0.1)
    with DecodeProcess() as process:
        process.probe(str(video))
        assert process._child
        stuck = process._child._process
        with monkeypatch.context() as undying:
            undying.setattr(stuck, "kill", lambda: None)
            undying.setattr(process._child._requests, "close", lambda: None)
            process.close()
        assert decode_process._abandoned == [stuck]
        stuck.kill()
        assert process.probe(str(video)).width > 0
        stuck.wait()
    assert decode_process._abandoned == [] and stuck.returncode == -signal.SIGKILL


def test_an_unforeseen_error_is_a_crash_with_its_last_words(video: Path) -> None:
    script = (
        "import os, sys\n"
        "from tfn_platform.decode_child import Answer\n"
        "Answer(os.dup(1)).send({'kind': 'ready'})\n"
        "sys.stdin.readline()\n"
        "print('what?', file=sys.stderr)\n"
        "sys.exit(3)\n"
    )
    with DecodeProcess(command=[sys.executable, "-c", script]) as process:
        with pytest.raises(VideoError, match=r"ended with exit status 3; what\?") as caught:
            process.probe(str(video))
    assert caught.value.reason is QuarantineReason.DECODER_CRASHED


def test_a_child_that_cannot_start_is_no_fault_of_the_video(video: Path) -> None:
    with DecodeProcess(command=[sys.executable, "-c", "import nothing_of_that_name"]) as process:
        with pytest.raises(ResourceError, match="could be started.*No module named"):
            process.probe(str(video))


def test_failing_storage_is_not_the_files_fault(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import io, errno\n"
        "from tfn_platform import video_source\n"
        "class Broken(io.FileIO):\n"
        "    def read(self, size=-1):\n"
        "        if self.tell() > 4000:\n"
        "            raise OSError(errno.EIO, 'the disk is broken')\n"
        "        return super().read(min(size, 1000))\n"
        "video_source._open_local = Broken\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with DecodeProcess() as process:
        with pytest.raises(VideoError, match="the disk is broken") as caught:
            list(process.decode(request_for(video)))
    assert caught.value.reason is QuarantineReason.STORAGE_ERROR
    assert caught.value.reason.is_transient


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel of Linux")
@pytest.mark.parametrize("name", ["hang.mp4", "video.mp4"])
def test_no_child_outlives_its_parent(tmp_path: Path, good: bytes, name: str) -> None:
    """Killed at once, while its child hangs in a decoder or waits for a reader."""
    (tmp_path / name).write_bytes(good)
    script = (
        "import sys, time\n"
        "from tfn_platform.decode_process import DecodeProcess\n"
        "process = DecodeProcess()\n"
        "child = process._living_child('')\n"
        "print(child._process.pid, flush=True)\n"
        "child.send({'kind': 'probe', 'uri': sys.argv[1]})\n"
        "time.sleep(600)\n"
    )
    path = os.pathsep.join([str(FAULTY_READER), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / name)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        cwd=FAULTY_READER.parent.parent,
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    time.sleep(1)
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _is_running(child):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise AssertionError("the child lives on")
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_wrong_numbers_are_refused_here() -> None:
    with pytest.raises(ValueError, match="batch_clips"):
        DecodeRequest("video.mp4", GRID, True, 0, 1, False)
    with pytest.raises(ValueError, match="stall_seconds must be positive, got 0"):
        DecodeProcess(stall_seconds=0)
