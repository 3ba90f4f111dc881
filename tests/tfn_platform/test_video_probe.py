from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_probe import (
    VideoInfo,
    check_declared,
    check_expected_duration,
    probe_video,
)
from tfn_platform.video_source import VideoError

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


def test_a_guess_from_the_bit_rate_is_no_declaration(make_video: MakeVideo) -> None:
    """FFmpeg makes a hundredth of a second of this file, by the rate that its header names."""
    path = make_video("v.m1v", times_seconds=TIMES, codec="mpeg1video", options={"bf": "0"})
    assert probe_video(str(path)).duration_seconds == pytest.approx(2.0, abs=0.05)


def test_signs_of_life_while_all_packets_are_read(make_video: MakeVideo) -> None:
    """There were none, and looking into a long file was taken for a hang."""
    path = make_video("v.mkv", times_seconds=TIMES, container_options={"live": "1"})
    signs = []
    probe_video(str(path), alive=lambda: signs.append(1))
    assert len(signs) > len(TIMES)


def test_a_real_file_with_two_video_streams_and_sound(shared_dir: Path) -> None:
    info = probe_video(str(shared_dir / "data" / "videos" / "torchcodec_nasa_13013.mp4"))
    assert (info.width, info.height, info.duration_seconds) == (320, 180, 13.0)


@pytest.mark.parametrize(
    ("actual", "expected", "is_refused"),
    [
        (100.0, 100.0, False),
        (109.9, 100.0, False),
        (110.1, 100.0, True),
        (89.9, 100.0, True),
        # A tenth of three seconds is less than the two that are always granted.
        (4.9, 3.0, False),
        (5.1, 3.0, True),
        (0.0, 1.9, False),
        (float("nan"), 3.0, True),
    ],
)
def test_a_duration_is_held_against_its_annotation(
    actual: float, expected: float, is_refused: bool
) -> None:
    def check() -> None:
        check_expected_duration(
            "video.mp4", actual_seconds=actual, expected_seconds=expected, tolerance_share=0.1
        )

    if is_refused:
        with pytest.raises(VideoError, match="its annotation says") as caught:
            check()
        assert caught.value.reason is QuarantineReason.DURATION_MISMATCH
    else:
        check()


def test_an_absurd_duration_is_refused_before_decoding() -> None:
    for seconds in (Fraction(10**9), Fraction(-1)):
        with pytest.raises(VideoError) as caught:
            check_declared("video.mp4", seconds)
        assert caught.value.reason is QuarantineReason.ABSURD_DURATION
    check_declared("video.mp4", Fraction(48 * 3600))
