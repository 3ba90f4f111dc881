"""That both ways of decoding agree, that frames are counted, and that the command runs."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from tests.benchmarks import decoding_memory
from tests.benchmarks.decoding import GRID, decoding_comparison
from tests.benchmarks.decoding_counts import count_decodable, count_frames, counting_decoder
from tests.benchmarks.decoding_videos import MadeVideo, flip_bits, write_long_video, write_video
from tests.benchmarks.measure import compare
from tests.benchmarks.per_clip_seeking import read_clip, read_timeline
from tfn_platform.video import probe_video

TINY = MadeVideo(64, 48, seconds=6, gop=40)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(TINY, tmp_path_factory.mktemp("videos") / "tiny.mp4")


def test_both_sides_agree(tiny_path: Path) -> None:
    comparison = decoding_comparison(tiny_path, "tiny")
    row = compare(comparison, device=torch.device("cpu"), repeats=1, extra_bytes=lambda side: 0)
    assert row.textbook_share == pytest.approx(3 / 12)
    assert row.goal == 4.0


def test_pixels_that_differ_are_noticed(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_video(MadeVideo(64, 48, seconds=6, gop=40, frame_rate=29), tmp_path / "x.mp4")
    comparison = decoding_comparison(tiny_path, "tiny")
    monkeypatch.setattr(
        "tests.benchmarks.decoding.read_clip",
        lambda path, clip, **options: read_clip(other, clip, **options),
    )
    with pytest.raises(AssertionError, match="not equal"):
        comparison.check(12, 3)


def test_a_clip_is_clamped_to_the_video(tiny_path: Path) -> None:
    timeline = read_timeline(tiny_path)
    assert (timeline.origin_seconds, timeline.duration_seconds) == (0, 6)
    first = read_clip(tiny_path, 0, grid=GRID, timeline=timeline)
    assert first.shape[0] == GRID.frames_per_clip
    assert (first[0] == first[-GRID.first_tick(0)]).all()
    last = read_clip(tiny_path, 11, grid=GRID, timeline=timeline)
    assert (last[-1] == last[-5]).all() and (last[0] != last[-1]).any()


def test_the_made_video_has_the_key_frames_asked_for(tiny_path: Path) -> None:
    with av.open(str(tiny_path)) as container:
        keys = [n for n, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys == [0, 40, 80, 120, 160]


def test_every_frame_that_is_decoded_counts(tiny_path: Path) -> None:
    counts = count_frames(tiny_path, name="tiny", grid=GRID)
    assert (counts.needed, counts.ending) == (180, "whole")
    # One more for planning, which decodes the first frame.
    assert counts.decoded == 181
    with counting_decoder() as decoded:
        for _ in range(3):
            probe_video(str(tiny_path))
    assert decoded.num_frames == 3


def test_a_damaged_video_is_decoded_once_too(tiny_path: Path, tmp_path: Path) -> None:
    damaged = flip_bits(tiny_path, tmp_path / "damaged.mp4")
    assert damaged.read_bytes() != tiny_path.read_bytes()
    needed = count_decodable(damaged)
    assert 0 < needed <= 180
    counts = count_frames(damaged, name="damaged", grid=GRID)
    assert (counts.needed, counts.decoded) == (needed, needed + 1)


def test_a_long_video_is_a_short_one_over_and_over(tmp_path: Path) -> None:
    path = write_long_video(tmp_path / "long.mp4", minutes=1, frame_rate=5, height=36)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
    assert times == [Fraction(index, 5) for index in range(64 * 5)]
    line = decoding_memory.measure(path)
    assert line.minutes == pytest.approx(64 / 60)
    assert line.peak_bytes > 0 and line.start_bytes > 0


def test_memory_of_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="missing_file"):
        decoding_memory.measure(tmp_path / "none.mp4")


@pytest.mark.slow
def test_the_command(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.decoding", "--small", "--repeats", "1"]
    command += ["--minutes", "1", "--out", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["speed"][0]["ratio"] > 0
    assert all(1 <= counts["ratio"] <= 1.05 for counts in figures["counts"])
    assert figures["memory"][0]["peak_bytes"] > 0
    assert "per clip" in done.stdout
