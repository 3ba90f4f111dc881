"""Frames told from packets, against the ones that a decoder gives."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.tfn_platform.edit_list import hide_start
from tfn_platform.frame_plan import FramePlan, UnplannableError, plan_frames
from tfn_platform.video_frames import FrameReader
from tfn_platform.video_source import open_video
from tfn_platform.video_ticks import tick_runs

MakeVideo = Callable[..., Path]
RATES = [Fraction(15), Fraction(30000, 1001), Fraction(7), Fraction(100)]
TICKS_AFTER_THE_END = 3
UNPLANNABLE = {"avi"}


def assert_plan_equals_the_decoder(path: Path, rate: Fraction) -> None:
    """The frame shown at every tick, by its time, and the duration."""
    shown: list[int | None] = []
    with open_video(str(path)) as source:
        reader = FrameReader(source)
        for run in tick_runs(reader, rate, unit_seconds=reader.unit_seconds):
            num_ticks = TICKS_AFTER_THE_END if run.is_last else run.num_ticks
            shown += [run.frame.pts] * num_ticks
            duration_seconds = run.end_seconds
    with open_video(str(path)) as source:
        plan = plan_frames(source)
    numbers = plan.frames_at(range(-2, len(shown)), frame_rate=rate)
    assert [plan.pts[number] for number in numbers] == [shown[0], shown[0], *shown]
    assert plan.duration_seconds == duration_seconds


def irregular(num_frames: int) -> list[Fraction]:
    gaps = np.random.default_rng(1).choice([15, 30, 33, 40, 50, 250, 1200], size=num_frames - 1)
    return [Fraction(0), *(Fraction(int(ms), 1000) for ms in np.cumsum(gaps))]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_frames_and_times_are_the_decoders(
    make_video: MakeVideo, name: str, rate: Fraction
) -> None:
    """With B-frames, so that packets do not come in the order of presentation."""
    path = make_video(name, times_seconds=irregular(90), options={"bf": "2", "g": "24"})
    assert_plan_equals_the_decoder(path, rate)


@pytest.mark.parametrize("rate", RATES)
def test_real_videos(shared_dir: Path, rate: Fraction) -> None:
    tried = 0
    for path in sorted((shared_dir / "data" / "videos").iterdir()):
        if path.suffix.lstrip(".") not in UNPLANNABLE:
            assert_plan_equals_the_decoder(path, rate)
            tried += 1
    assert tried >= 10


def test_a_frame_is_shown_from_its_very_start() -> None:
    plan = FramePlan(0, Fraction(1, 10), [5, 8, 12], [3, 4, 1], [True, False, False])
    # Units 0, 3 and 7 after the first frame; at 10/3 ticks a second a tick is 3 units.
    assert plan.frames_at([-4, 0, 1, 2, 3], frame_rate=Fraction(10, 3)) == [0, 0, 1, 1, 2]
    # At 10 ticks a second a tick is a unit.
    ticks = [0, 2, 3, 6, 7, 100]
    assert plan.frames_at(ticks, frame_rate=Fraction(10)) == [0, 0, 1, 1, 2, 2]
    assert plan.duration_seconds == Fraction(8, 10)
    assert plan.mapping()[1] == {"pts": 8, "duration": 4, "key_frame": 0}


def test_what_only_decoding_can_tell_is_refused(make_video: MakeVideo, tmp_path: Path) -> None:
    times = [Fraction(index, 25) for index in range(100)]
    avi = make_video("a.avi", times_seconds=times, codec="mpeg4")
    with (
        pytest.raises(UnplannableError, match="presentation times"),
        open_video(str(avi)) as source,
    ):
        plan_frames(source)
    raw = make_video("a.h264", times_seconds=times)
    with pytest.raises(UnplannableError, match="no time"), open_video(str(raw)) as source:
        plan_frames(source)
    late = make_video("late.mp4", times_seconds=[*times, Fraction(700)])
    with pytest.raises(UnplannableError, match="no frame for 600"), open_video(str(late)) as source:
        plan_frames(source)
    whole = make_video("whole.mkv", times_seconds=times).read_bytes()
    short = tmp_path / "short.mkv"
    short.write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(UnplannableError, match="of the declared 4.000"),
        open_video(str(short)) as source,
    ):
        plan_frames(source)
    fast = {"movflags": "faststart"}
    whole = make_video("whole.mp4", times_seconds=times, container_options=fast).read_bytes()
    short = tmp_path / "short.mp4"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnplannableError, match="damaged"), open_video(str(short)) as source:
        plan_frames(source)


def test_frames_that_an_edit_list_hides_do_not_count(make_video: MakeVideo) -> None:
    times = [Fraction(index, 25) for index in range(100)]
    path = make_video("a.mp4", times_seconds=times, options={"bf": "0"})
    hide_start(path, Fraction(10, 25))
    with open_video(str(path)) as source:
        assert len(plan_frames(source).pts) == 90
    assert_plan_equals_the_decoder(path, Fraction(15))
