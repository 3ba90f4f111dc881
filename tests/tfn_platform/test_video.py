"""Clips cut on the fly against the slow, obvious way: decode everything, look up every tick."""

import math
import pickle
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from tfn_platform import video
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video import (
    ChunkLimit,
    DecodedVideo,
    FrameChunk,
    SamplingGrid,
    VideoError,
    decode_video,
    iter_chunks,
    read_ticks,
)

MakeVideo = Callable[..., Path]
SHORT_SIDE = 40
GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=32, short_side=SHORT_SIDE)
SHARP = {"bf": "2", "g": "24", "crf": "20"}


def regular(num_frames: int, rate: Fraction | int) -> list[Fraction]:
    return [index / Fraction(rate) for index in range(num_frames)]


def irregular(num_frames: int) -> list[Fraction]:
    gaps = np.random.default_rng(1).choice([15, 30, 33, 40, 50, 250, 1200], size=num_frames - 1)
    return [Fraction(0), *(Fraction(int(ms), 1000) for ms in np.cumsum(gaps))]


def decode_all(path: Path) -> tuple[list[Fraction], list[np.ndarray], Fraction]:
    """Every frame's time from the first, its resized pixels, and the duration."""
    starts, images, end = [], [], Fraction(0)
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        for frame in container.decode(video=0):
            scale = Fraction(SHORT_SIDE, min(frame.width, frame.height))
            kernel = Interpolation.AREA if scale < 1 else Interpolation.BILINEAR
            resized = frame.reformat(
                width=math.floor(frame.width * scale + Fraction(1, 2)),
                height=math.floor(frame.height * scale + Fraction(1, 2)),
                format="rgb24",
                interpolation=kernel | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
            )
            starts.append(frame.pts * base)
            images.append(resized.to_ndarray())
            end = (frame.pts + frame.duration) * base
    return [start - starts[0] for start in starts], images, end - starts[0]


def image_at(tick: int, starts: Sequence[Fraction], images: Sequence[np.ndarray]) -> np.ndarray:
    shown = images[0]
    for start, image in zip(starts, images, strict=True):
        if start <= tick / Fraction(15):
            shown = image
    return shown


def assert_clips_equal_the_oracle(path: Path, grid: SamplingGrid, clips_per_chunk: int) -> int:
    starts, images, duration = decode_all(path)
    num_clips = max(1, math.floor(duration / grid.stride_seconds + Fraction(1, 2)))
    clip = 0
    for chunk in iter_chunks(str(path), grid, clips_per_chunk=clips_per_chunk):
        assert chunk.first_clip == clip
        assert chunk.num_clips == min(clips_per_chunk, num_clips - clip)
        for clip in range(chunk.first_clip, chunk.first_clip + chunk.num_clips):
            first = grid.first_tick(clip)
            offset = grid.clip_offset(clip, first_clip=chunk.first_clip)
            actual = chunk.frames[offset : offset + grid.frames_per_clip]
            ticks = range(first, first + grid.frames_per_clip)
            expected = np.stack([image_at(tick, starts, images) for tick in ticks])
            np.testing.assert_array_equal(actual, expected)
        clip += 1
    assert clip == num_clips
    return num_clips


TIMINGS = {
    "25 fps": (regular(140, 25), 25),
    "29.97 fps": (regular(150, Fraction(30000, 1001)), Fraction(30000, 1001)),
    "10 fps": (regular(37, 10), 10),
    "variable": (irregular(60), 25),
    "one frame": ([Fraction(0)], 25),
}


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("clips_per_chunk", [1, 4, 1000])
def test_clips_equal_the_oracle_bit_by_bit(
    make_video: MakeVideo, timing: str, clips_per_chunk: int
) -> None:
    times, rate = TIMINGS[timing]
    path = make_video("video.mp4", times_seconds=times, rate=rate, options=SHARP)
    assert_clips_equal_the_oracle(path, GRID, clips_per_chunk)


@pytest.mark.parametrize(
    ("frames_per_clip", "stride"),
    [(1, Fraction(1, 2)), (8, Fraction(8, 15)), (4, Fraction(2)), (5, Fraction(1, 7))],
)
@pytest.mark.parametrize("alignment", ["center", "start"])
def test_other_grids_equal_the_oracle(
    make_video: MakeVideo, frames_per_clip: int, stride: Fraction, alignment: str
) -> None:
    grid = SamplingGrid(Fraction(15), stride, frames_per_clip, SHORT_SIDE, alignment)  # type: ignore[arg-type]
    path = make_video("video.mp4", times_seconds=irregular(50), options=SHARP)
    assert_clips_equal_the_oracle(path, grid, 3)


@pytest.mark.parametrize("name", ["video.mkv", "video.ts", "open_gop.mp4"])
def test_containers_equal_the_oracle(make_video: MakeVideo, name: str) -> None:
    """An mpeg-ts file begins at 1.4 seconds, not 0; frames of an open group refer across it."""
    options = SHARP | ({"x264-params": "open-gop=1:keyint=24"} if "open" in name else {})
    path = make_video(name, times_seconds=regular(150, 25), options=options)
    assert assert_clips_equal_the_oracle(path, GRID, 4) == 12


def test_gif(make_video: MakeVideo) -> None:
    path = make_video(
        "video.gif", times_seconds=regular(40, 10), rate=10, codec="gif", pix_fmt="rgb8"
    )
    assert assert_clips_equal_the_oracle(path, GRID, 3) == 8


def test_avi_stores_no_presentation_times(make_video: MakeVideo) -> None:
    """B-frames in avi: times made up by the demuxer ran backwards for a third of the frames."""
    path = make_video(
        "video.avi",
        times_seconds=regular(100, 25),
        codec="mpeg4",
        options={"bf": "2", "g": "12"},
    )
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    grid = SamplingGrid(Fraction(25), Fraction(1, 2), frames_per_clip=1, short_side=48)
    chunks = list(iter_chunks(str(path), grid, clips_per_chunk=100))
    assert chunks[0].num_clips == 8
    for clip in range(8):
        tick = grid.first_tick(clip)
        actual = chunks[0].frames[grid.clip_offset(clip, first_clip=0)].astype(int)
        # The resizer rounds more carefully than the plain conversion, by a step or two.
        errors = [np.abs(actual - image).mean() for image in images]
        assert int(np.argmin(errors)) == tick


def test_a_raw_stream_without_times_goes_by_the_rate(make_video: MakeVideo) -> None:
    path = make_video("video.h264", times_seconds=regular(100, 25), options={"bf": "0"})
    chunks = list(iter_chunks(str(path), GRID, clips_per_chunk=100))
    assert chunks[0].num_clips == 8


def test_the_first_of_several_video_streams_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream in streams:
            stream.width = stream.height = 64
        for index in range(20):
            for level, stream in zip((40, 200), streams, strict=True):
                image = np.full((64, 64, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    chunk = next(iter_chunks(str(path), GRID, clips_per_chunk=100))
    assert chunk.frames.mean() == pytest.approx(40, abs=3)


def test_rotated_frames_are_turned_upright(make_video: MakeVideo) -> None:
    """A phone held upright stores lying frames and a matrix that turns them clockwise."""
    path = make_video("video.mp4", times_seconds=regular(20, 10), rate=10, size=(96, 48))
    upright = next(iter_chunks(str(path), GRID, clips_per_chunk=100)).frames
    data = bytearray(path.read_bytes())
    matrix_at = data.index(b"tkhd") + 4 + 40
    one = 0x10000
    rows = (0, one, 0, -one, 0, 0, 48 * one, 0, 0x40000000)
    data[matrix_at : matrix_at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in rows)
    path.write_bytes(data)
    turned = next(iter_chunks(str(path), GRID, clips_per_chunk=100)).frames
    np.testing.assert_array_equal(turned, np.rot90(upright, k=-1, axes=(1, 2)))


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.ts", "open_gop.mp4"])
def test_read_ticks_gives_the_pixels_of_iter_chunks(make_video: MakeVideo, name: str) -> None:
    options = SHARP | ({"x264-params": "open-gop=1:keyint=24"} if "open" in name else {})
    path = make_video(name, times_seconds=regular(200, 25), options=options)
    starts, images, _ = decode_all(path)
    for first_tick in (-20, -3, 0, 7, 40, 77, 115, 119, 300):
        actual = read_ticks(
            str(path),
            frame_rate=Fraction(15),
            first_tick=first_tick,
            num_ticks=9,
            short_side=SHORT_SIDE,
        )
        expected = [image_at(tick, starts, images) for tick in range(first_tick, first_tick + 9)]
        np.testing.assert_array_equal(actual, np.stack(expected))


def test_chunks_do_not_grow_with_the_video(make_video: MakeVideo) -> None:
    path = make_video("video.mp4", times_seconds=regular(1500, 25), options={"preset": "ultrafast"})
    chunks = iter_chunks(str(path), GRID, clips_per_chunk=4)
    sizes = [chunk.frames.shape[0] for chunk in chunks]
    assert len(sizes) == 30
    # Three strides and a clip, to within the rounding of 7.5 ticks.
    assert set(sizes) <= {32 + 22, 32 + 23}


def test_ticks_of_no_clip_are_not_held(make_video: MakeVideo) -> None:
    """One frame in two seconds: a chunk of four clips held 91 frames, of which 87 for nothing."""
    path = make_video("video.mp4", times_seconds=regular(250, 25))
    grid = SamplingGrid(Fraction(15), Fraction(2), frames_per_clip=1, short_side=SHORT_SIDE)
    chunks = list(iter_chunks(str(path), grid, clips_per_chunk=4))
    assert [chunk.frames.shape[0] for chunk in chunks] == [4, 1]
    assert [chunk.first_tick for chunk in chunks] == [15, 135]


def test_frames_of_no_tick_are_not_resized(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("video.mp4", times_seconds=regular(250, 25))
    resized = []
    resize = video._Resizer.__call__
    monkeypatch.setattr(
        video._Resizer, "__call__", lambda self, frame: resized.append(1) or resize(self, frame)
    )
    grid = SamplingGrid(Fraction(15), Fraction(2), frames_per_clip=1, short_side=SHORT_SIDE)
    list(iter_chunks(str(path), grid, clips_per_chunk=4))
    # One a clip and the last one, which stands for what comes after it.
    assert len(resized) == 6


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (66, 34)])
def test_squares_are_cut_from_the_middle(make_video: MakeVideo, size: tuple[int, int]) -> None:
    path = make_video("video.mp4", times_seconds=regular(30, 25), size=size, options=SHARP)
    (whole,) = iter_chunks(str(path), GRID, clips_per_chunk=10)
    (square,) = iter_chunks(str(path), GRID, clips_per_chunk=10, square=True)
    height, width = whole.frames.shape[1:3]
    top, left = (height - SHORT_SIDE) // 2, (width - SHORT_SIDE) // 2
    expected = whole.frames[:, top : top + SHORT_SIDE, left : left + SHORT_SIDE]
    np.testing.assert_array_equal(square.frames, expected)


@pytest.mark.parametrize("frames_per_clip", [1, 8, 32])
@pytest.mark.parametrize("batch_clips", [1, 3])
@pytest.mark.parametrize("max_bytes", [1, 200_000, 1_000_000])
def test_chunks_hold_whole_batches_within_the_limit(
    make_video: MakeVideo, frames_per_clip: int, batch_clips: int, max_bytes: int
) -> None:
    path = make_video("video.mp4", times_seconds=regular(500, 25), options={"preset": "ultrafast"})
    grid = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip, SHORT_SIDE)
    limit = ChunkLimit(batch_clips, max_bytes)
    *chunks, last = iter_chunks(str(path), grid, clips_per_chunk=limit)
    num_clips = {chunk.num_clips for chunk in chunks}
    assert len(num_clips) <= 1 and last.first_clip + last.num_clips == 40
    frame_bytes = last.frames[0].nbytes
    for chunk in chunks:
        assert chunk.num_clips % batch_clips == 0
        assert chunk.num_clips == batch_clips or chunk.frames.nbytes <= max_bytes
        # Another batch would not fit, whatever the rounding of strides that are no whole ticks.
        more = grid.chunk_ticks(chunk.num_clips + batch_clips, first_clip=chunk.first_clip)
        assert (more + 1) * frame_bytes > max_bytes


def test_a_truncated_file_is_told_at_the_end(make_video: MakeVideo) -> None:
    """Decoders end such a file without an error, so it went by as a shorter video."""
    path = make_video(
        "video.mp4",
        times_seconds=regular(250, 25),
        options=SHARP,
        container_options={"movflags": "+faststart"},
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="of the declared 10.000 seconds") as caught:
        list(iter_chunks(str(path), GRID, clips_per_chunk=4))
    assert caught.value.reason is QuarantineReason.TRUNCATED
    caught.value.attempts = 3
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.attempts) == (QuarantineReason.TRUNCATED, 3)


def test_salvage_takes_what_there_is(make_video: MakeVideo) -> None:
    """The clips of half a video are those of the whole one, but for the last."""
    path = make_video(
        "video.mp4",
        times_seconds=regular(250, 25),
        options=SHARP,
        container_options={"movflags": "+faststart"},
    )
    (whole,) = iter_chunks(str(path), GRID, clips_per_chunk=100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    chunk, end = decode_video(str(path), GRID, clips_per_chunk=100, salvage=True)
    assert isinstance(chunk, FrameChunk) and isinstance(end, DecodedVideo)
    assert end.damage is not None and end.damage.reason is QuarantineReason.TRUNCATED
    assert end.num_clips == chunk.num_clips == GRID.num_clips(end.seconds) < 20
    num_sure_ticks = math.floor(end.seconds * 15) - GRID.first_tick(0)
    np.testing.assert_array_equal(chunk.frames[:num_sure_ticks], whole.frames[:num_sure_ticks])


def test_a_frame_that_claims_to_last_for_days_does_not(make_video: MakeVideo) -> None:
    """The last frame's duration, 2^31 units, made a hundred thousand clips of one picture."""
    path = make_video("video.mp4", times_seconds=regular(100, 25), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    table = data.index(b"stts")
    num_entries = int.from_bytes(data[table + 8 : table + 12], "big")
    last_duration = table + 12 + 8 * num_entries - 4
    data[last_duration : last_duration + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(data)
    *_, end = decode_video(str(path), GRID, clips_per_chunk=4, salvage=True)
    assert isinstance(end, DecodedVideo) and end.num_clips <= 10


def test_a_few_bad_packets_are_skipped_and_many_are_not(make_video: MakeVideo) -> None:
    path = make_video("video.mp4", times_seconds=regular(200, 25), options={"bf": "0", "g": "1"})
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    sound = path.read_bytes()

    def spoil(every: int) -> None:
        data = bytearray(sound)
        for position, size in places[5::every]:
            data[position : position + size] = b"\xff" * size
        path.write_bytes(data)

    spoil(50)
    assert sum(c.num_clips for c in iter_chunks(str(path), GRID, clips_per_chunk=4)) == 16
    spoil(4)
    with pytest.raises(VideoError) as caught:
        list(iter_chunks(str(path), GRID, clips_per_chunk=4))
    assert caught.value.reason is QuarantineReason.CORRUPT_FRAMES


def test_wrong_arguments_are_refused(make_video: MakeVideo) -> None:
    path = str(make_video("video.mp4", times_seconds=regular(5, 25)))
    with pytest.raises(ValueError, match="clips_per_chunk must be at least 1, got 0"):
        next(iter_chunks(path, GRID, clips_per_chunk=0))
    with pytest.raises(ValueError, match="num_ticks 0"):
        read_ticks(path, frame_rate=Fraction(15), first_tick=0, num_ticks=0, short_side=8)


REAL_CLIPS = {
    "bigbuckbunny.mp4": 11,
    "bikes.mp4": 20,
    "carphone_distorted.mp4": 8,
    "carphone_pristine.mp4": 8,
    "decord_flipping_a_pancake.mkv": 21,
    "kinetics_i3d_CricketShot_g04_c01_rgb.gif": 6,
    "mmaction2_demo.mp4": 20,
    "mmaction2_demo_skeleton.mp4": 5,
    "mmaction2_part_0.mp4": 2,
    "mmaction2_test.avi": 13,
    "mmaction2_test.mp4": 20,
    "sam2_05_default_juggle.mp4": 21,
    "torchcodec_nasa_13013.mp4": 26,
    "tree.avi": 59,
    "v_GGSY1Qvo990.mp4": 36,
    "v_ZNVhz7ctTq0.mp4": 28,
    "vtest.avi": 159,
}


@pytest.mark.parametrize("name", REAL_CLIPS)
def test_real_files_give_all_their_clips(shared_dir: Path, name: str) -> None:
    """tree.avi has 68 pictures in 29.6 seconds: most of its frames are empty, "as before"."""
    path = shared_dir / "data" / "videos" / name
    chunks = list(iter_chunks(str(path), GRID, clips_per_chunk=16))
    assert sum(chunk.num_clips for chunk in chunks) == REAL_CLIPS[name]
    for first_tick in (0, 31):
        seen = read_ticks(
            str(path),
            frame_rate=Fraction(15),
            first_tick=first_tick,
            num_ticks=4,
            short_side=SHORT_SIDE,
        )
        wanted = chunks[0].frames[first_tick - chunks[0].first_tick :][:4]
        if len(wanted) == 4:
            np.testing.assert_array_equal(seen, wanted)
