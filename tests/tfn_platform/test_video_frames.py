from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_frames import FrameReader, _common_measure
from tfn_platform.video_source import VideoError, open_video

MakeVideo = Callable[..., Path]


def seconds_of(reader: FrameReader) -> list[Fraction]:
    """When the frames begin."""
    return [timed.start * reader.unit_seconds for timed in reader]


def test_times_are_exact_and_nothing_counts_as_bad(make_video: MakeVideo) -> None:
    rate = Fraction(30000, 1001)
    path = make_video("v.mp4", times_seconds=[n / rate for n in range(40)], rate=rate)
    with open_video(str(path)) as source:
        reader = FrameReader(source)
        starts = seconds_of(reader)
        reader.check_quality()
    assert starts == [n / rate for n in range(40)]
    assert (reader.num_packets, reader.num_frames) == (40, 40)
    assert (reader.num_bad_packets, reader.num_bad_timestamps) == (0, 0)


def test_a_leap_in_time_is_refused(make_video: MakeVideo) -> None:
    """A wrapped clock made one frame last for a day: millions of equal clips."""
    times = [Fraction(n, 25) + (86_400 if n > 10 else 0) for n in range(20)]
    path = make_video("v.mkv", times_seconds=times)
    with open_video(str(path)) as source, pytest.raises(VideoError, match="no frame") as caught:
        list(FrameReader(source))
    assert caught.value.reason is QuarantineReason.BAD_TIMESTAMPS


def shift_last_cluster(path: Path) -> None:
    """Flip one bit, so that the last frames of a Matroska file come eight seconds later."""
    data = bytearray(path.read_bytes())
    time_at = data.index(b"\xe7\x82", data.rindex(b"\x1f\x43\xb6\x75")) + 2
    assert not data[time_at] & 0x20
    data[time_at] ^= 0x20
    path.write_bytes(data)


@pytest.mark.parametrize("salvage", [False, True])
def test_frames_after_the_declared_end_are_left_out_and_told(
    make_video: MakeVideo, salvage: bool
) -> None:
    """A flipped bit moved the last cluster, and one frame before it lasted for eight seconds."""
    path = make_video("v.mkv", times_seconds=[Fraction(n, 25) for n in range(250)])
    with open_video(str(path)) as source:
        sound = seconds_of(FrameReader(source))
    shift_last_cluster(path)
    with open_video(str(path)) as source:
        reader = FrameReader(source, salvage=salvage)
        starts = seconds_of(reader)
        with pytest.raises(VideoError, match="begin after the end") as caught:
            reader.check_quality()
    assert caught.value.reason is QuarantineReason.BAD_TIMESTAMPS
    assert starts == sound[: len(starts)] and 0 < len(starts) == 250 - reader.num_late_frames < 250


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.mkv", {"live": "1"}),
        ("v.mp4", {"movflags": "frag_keyframe"}),
        ("v.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("v.ts", {}),
        ("v.flv", {"flvflags": "no_duration_filesize"}),
    ],
)
@pytest.mark.parametrize("begin", [0, 4])
def test_sound_files_that_declare_little_or_nothing_are_whole(
    make_video: MakeVideo, name: str, options: dict[str, str], begin: int
) -> None:
    times = [begin + Fraction(n, 25) for n in range(100)]
    path = make_video(name, times_seconds=times, options={"g": "10"}, container_options=options)
    with open_video(str(path)) as source:
        reader = FrameReader(source)
        assert len(list(reader)) == 100
        reader.check_quality()


def test_matroska_may_count_from_the_first_frame(make_video: MakeVideo) -> None:
    """Four seconds that begin at four: some writers declare that they end at eight, some four."""
    path = make_video("v.mkv", times_seconds=[4 + Fraction(n, 25) for n in range(100)])
    data = path.read_bytes()
    assert data.count(b"00:00:08.0") == 1
    for end in (b"00:00:08.0", b"00:00:04.0"):
        path.write_bytes(data.replace(b"00:00:08.0", end))
        with open_video(str(path)) as source:
            reader = FrameReader(source)
            assert len(list(reader)) == 100
            reader.check_quality()


def test_uneven_times_may_end_after_the_declared_end(make_video: MakeVideo) -> None:
    """What an mp4 declares is short by the reordering: here by a frame of five seconds."""
    times = [*(Fraction(n, 25) for n in range(50)), Fraction(7), Fraction(12)]
    path = make_video("v.mp4", times_seconds=times, options={"bf": "2"})
    with open_video(str(path)) as source:
        declared_seconds = source.declared_seconds()
        assert declared_seconds is not None and declared_seconds < 8
        reader = FrameReader(source)
        assert seconds_of(reader) == times
        reader.check_quality()


def test_an_mp4_that_runs_slower_than_it_declares_is_told(make_video: MakeVideo) -> None:
    """A flipped bit in its table of times, and no edit list that says where to stop."""
    path = make_video(
        "v.mp4",
        times_seconds=[Fraction(n, 25) for n in range(250)],
        options={"bf": "0"},
        container_options={"use_editlist": "0"},
    )
    data = bytearray(path.read_bytes())
    step_at = data.index(b"stts") + 4 + 4 + 4 + 4
    step = int.from_bytes(data[step_at : step_at + 4], "big")
    data[step_at : step_at + 4] = (step | step << 1).to_bytes(4, "big")
    path.write_bytes(data)
    with open_video(str(path)) as source:
        reader = FrameReader(source)
        assert len(list(reader)) < 250
        with pytest.raises(VideoError, match="begin after the end"):
            reader.check_quality()


def test_an_avi_may_hold_more_frames_than_its_header_says(make_video: MakeVideo) -> None:
    path = make_video("v.avi", times_seconds=[Fraction(n, 25) for n in range(100)], codec="mpeg4")
    data = bytearray(path.read_bytes())
    length_at = data.index(b"strh") + 40
    assert data[length_at] == 100
    data[length_at] = 50
    path.write_bytes(data)
    with open_video(str(path)) as source:
        assert source.declared_seconds() == 2
        reader = FrameReader(source)
        assert len(list(reader)) == 100
        reader.check_quality()


def test_frames_that_the_decoder_made_up_count(make_video: MakeVideo) -> None:
    """Two bytes wrong in every other packet, and each of them decodes without an error."""
    times = [Fraction(n, 25) for n in range(100)]
    path = make_video("v.mp4", times_seconds=times, options={"bf": "0"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    sound = path.read_bytes()

    def read_spoilt(every: int) -> FrameReader:
        data = bytearray(sound)
        for position, size in packets[5::every]:
            for place in (position + size // 2, position + size // 2 + 1):
                data[place] ^= 0xFF
        path.write_bytes(data)
        with open_video(str(path)) as source:
            reader = FrameReader(source)
            num_corrupt = sum(timed.frame.is_corrupt for timed in reader)
            assert reader.num_corrupt_frames == num_corrupt > 0
            assert reader.num_bad_packets <= 5
        return reader

    read_spoilt(10).check_quality()
    with pytest.raises(VideoError, match="frames are damaged") as caught:
        read_spoilt(2).check_quality()
    assert caught.value.reason is QuarantineReason.CORRUPT_FRAMES


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [("1/12800", "1/25", "1/12800"), ("1/1000", "1001/30000", "1/30000"), ("2/3", "3/2", "1/6")],
)
def test_the_unit_is_the_longest_that_both_clocks_are_multiples_of(
    one: str, other: str, both: str
) -> None:
    unit = _common_measure(Fraction(one), Fraction(other))
    assert unit == Fraction(both)
    assert (Fraction(one) / unit).denominator == (Fraction(other) / unit).denominator == 1
