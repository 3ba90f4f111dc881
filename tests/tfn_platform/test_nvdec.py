"""Decoding by torchcodec against PyAV's: the same frames at the same ticks, nearly the same pixels.

Each test runs with a stand-in for torchcodec, made of PyAV; with `-m nvdec`, which needs FFmpeg's
libraries, with torchcodec itself, on a CPU but for the tests marked `gpu`.
"""

import importlib.util
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tfn_platform.edit_list import hide_start
from tests.tfn_platform.torchcodec_stand_in import stand_in_modules
from tfn_platform.nvdec import (
    DeviceChunk,
    NotForNvdecError,
    decode_on_device,
    why_not_nvdec,
)
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video import ChunkLimit, DecodedVideo, SamplingGrid, VideoError, decode_video

MakeVideo = Callable[..., Path]
CPU = torch.device("cpu")
GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=32, short_side=64)
SPARSE = SamplingGrid(Fraction(10), Fraction(1), frames_per_clip=4, short_side=40)
MEAN_LEVELS = 3.0
"""Of 255, in one real video: what another way of resizing and of making RGB may change."""
MADE_MEAN_LEVELS = 8.0
"""The same in videos made here, of hard-edged saturated squares; a wrong frame makes 40."""


@pytest.fixture(params=["stand-in", pytest.param("torchcodec", marks=pytest.mark.nvdec)])
def torchcodec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported as torchcodec."""
    if request.param == "stand-in":
        for name, module in stand_in_modules().items():
            monkeypatch.setitem(sys.modules, name, module)


def assert_as_pyav(
    uri: str,
    grid: SamplingGrid,
    *,
    clips_per_chunk: int | ChunkLimit = 8,
    square: bool = False,
    device: torch.device = CPU,
) -> float:
    """The mean difference in levels, having seen that all but pixels is the same."""
    made = decode_on_device(
        uri, grid, clips_per_chunk=clips_per_chunk, device=device, square=square
    )
    differences = []
    for expected in decode_video(uri, grid, clips_per_chunk=clips_per_chunk, square=square):
        actual = next(made)
        if isinstance(expected, DecodedVideo):
            assert actual == expected
            continue
        assert isinstance(actual, DeviceChunk)
        assert actual.first_tick == expected.first_tick
        assert (actual.first_clip, actual.num_clips) == (expected.first_clip, expected.num_clips)
        assert actual.frames.shape == expected.frames.shape
        frames = actual.frames.cpu().numpy().astype(int)
        differences.append(np.abs(frames - expected.frames).mean())
    assert next(made, None) is None
    return float(np.mean(differences))


def irregular(num_frames: int) -> list[Fraction]:
    gaps = np.random.default_rng(1).choice([15, 30, 33, 40, 50, 250], size=num_frames - 1)
    return [Fraction(0), *(Fraction(int(ms), 1000) for ms in np.cumsum(gaps))]


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("grid", [GRID, SPARSE], ids=["overlapping", "sparse"])
@pytest.mark.parametrize("clips_per_chunk", [1, 3, 100, ChunkLimit(2, 1 << 20)])
@pytest.mark.parametrize("square", [False, True])
def test_chunks_are_those_of_pyav(
    make_video: MakeVideo, grid: SamplingGrid, clips_per_chunk: int | ChunkLimit, square: bool
) -> None:
    """Frames differ from one another by far more than the tolerance: none is mistaken."""
    path = make_video("a.mp4", times_seconds=irregular(120), options={"bf": "2", "g": "24"})
    options = {"clips_per_chunk": clips_per_chunk, "square": square}
    assert assert_as_pyav(str(path), grid, **options) < MADE_MEAN_LEVELS  # type: ignore[arg-type]


@pytest.mark.usefixtures("torchcodec")
def test_an_address_is_read_through_the_storage(make_video: MakeVideo) -> None:
    path = make_video("a.mkv", times_seconds=irregular(60))
    assert assert_as_pyav(path.as_uri(), GRID) < MADE_MEAN_LEVELS


@pytest.mark.usefixtures("torchcodec")
def test_rotated_frames_are_turned_upright(make_video: MakeVideo) -> None:
    """By a matrix in the header, as phones write it."""
    path = make_video("a.mp4", times_seconds=irregular(40), size=(96, 48))
    data = bytearray(path.read_bytes())
    matrix_at, one = data.index(b"tkhd") + 4 + 40, 0x10000
    rows = (0, one, 0, -one, 0, 0, 48 * one, 0, 0x40000000)
    data[matrix_at : matrix_at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in rows)
    path.write_bytes(data)
    assert assert_as_pyav(str(path), GRID) < MADE_MEAN_LEVELS


@pytest.mark.usefixtures("torchcodec")
def test_frames_that_an_edit_list_hides_do_not_count(make_video: MakeVideo) -> None:
    times = [Fraction(index, 25) for index in range(100)]
    path = make_video("a.mp4", times_seconds=times, options={"bf": "0", "g": "40"})
    hide_start(path, Fraction(10, 25))
    assert assert_as_pyav(str(path), GRID, clips_per_chunk=3) < MADE_MEAN_LEVELS


@pytest.mark.usefixtures("torchcodec")
def test_frames_that_overlapping_chunks_share_are_the_same(make_video: MakeVideo) -> None:
    path = make_video("a.mp4", times_seconds=irregular(120))
    chunks = [
        [c for c in decode_on_device(str(path), GRID, clips_per_chunk=n, device=CPU)]
        for n in (1, 100)
    ]
    whole = chunks[1][0]
    assert isinstance(whole, DeviceChunk)
    for chunk in chunks[0][:-1]:
        assert isinstance(chunk, DeviceChunk)
        begin = chunk.first_tick - whole.first_tick
        assert torch.equal(chunk.frames, whole.frames[begin:][: GRID.frames_per_clip])


@pytest.mark.nvdec
@pytest.mark.slow
def test_real_videos(shared_dir: Path) -> None:
    refused = []
    for path in sorted((shared_dir / "data" / "videos").iterdir()):
        try:
            assert assert_as_pyav(str(path), GRID) < MEAN_LEVELS
        except NotForNvdecError:
            refused.append(path.suffix)
    assert set(refused) <= {".avi"}


@pytest.mark.usefixtures("torchcodec")
def test_files_for_pyav_are_told_from_unusable_ones(make_video: MakeVideo, tmp_path: Path) -> None:
    times = [Fraction(index, 25) for index in range(50)]
    avi = make_video("a.avi", times_seconds=times, codec="mpeg4")
    options = {"clips_per_chunk": 4, "device": CPU}
    with pytest.raises(NotForNvdecError, match=r"a\.avi: avi stores no presentation times"):
        next(decode_on_device(str(avi), GRID, **options))  # type: ignore[arg-type]
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError) as caught:
        next(decode_on_device(str(tmp_path / "text.mp4"), GRID, **options))  # type: ignore[arg-type]
    assert caught.value.reason is QuarantineReason.NOT_A_VIDEO


@pytest.mark.usefixtures("torchcodec")
def test_other_frames_than_those_asked_for_are_noticed(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchcodec.decoders import VideoDecoder

    right = VideoDecoder.get_frames_at
    monkeypatch.setattr(
        VideoDecoder, "get_frames_at", lambda self, at: right(self, [n + 1 for n in at[:-1]] + [0])
    )
    path = make_video("a.mp4", times_seconds=irregular(60))
    with pytest.raises(NotForNvdecError, match="asked for"):
        list(decode_on_device(str(path), GRID, clips_per_chunk=4, device=CPU))


def test_why_not_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with all before it in place."""
    found = [None, object()]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "pip install" in str(why_not_nvdec())
    found.reverse()
    assert why_not_nvdec() == "torch sees no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    modules = stand_in_modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert why_not_nvdec() is None
    monkeypatch.setattr(modules["torchcodec"], "ffmpeg_major_version", None)
    assert "finds no FFmpeg" in str(why_not_nvdec())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    assert "cannot be loaded" in str(why_not_nvdec())


@pytest.mark.nvdec
def test_torchcodec_and_ffmpeg_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is needed but for a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_not_nvdec() is None


@pytest.mark.nvdec
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_on_the_gpu(make_video: MakeVideo) -> None:
    """Large enough for every engine, which refuses tiny frames."""
    path = make_video("a.mp4", times_seconds=irregular(120), size=(320, 240))
    assert assert_as_pyav(str(path), GRID, device=torch.device("cuda")) < MADE_MEAN_LEVELS


def test_frames_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="frames must be uint8"):
        DeviceChunk(0, 0, 1, torch.zeros(3, 4, 4, 3))
