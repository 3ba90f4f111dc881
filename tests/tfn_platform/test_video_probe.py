from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from tfn_platform.video_probe import VideoInfo, probe_video

MakeVideo = Callable[..., Path]
TIMES = [Fraction(n, 25) for n in range(50)]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_the_facts_of_a_plain_file(make_video: MakeVideo, name: str) -> None:
    info = probe_video(str(make_video(name, times_seconds=TIMES, size=(96, 64))))
    assert info == VideoInfo(
        width=96,
        height=64,
        frame_rate=pytest.approx(25, rel=0.01),
        duration_seconds=pytest.approx(2.0, abs=0.05),
        rotation=0,
        codec="h264",
    )


def test_a_file_that_declares_nothing_is_measured(make_video: MakeVideo) -> None:
    path = make_video("v.h264", times_seconds=TIMES, options={"bf": "0"})
    assert probe_video(str(path)).duration_seconds == pytest.approx(2.0, abs=0.05)


def test_a_real_file_with_two_video_streams_and_sound(shared_dir: Path) -> None:
    info = probe_video(str(shared_dir / "data" / "videos" / "torchcodec_nasa_13013.mp4"))
    assert (info.width, info.height, info.duration_seconds) == (320, 180, 13.0)
