from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_frames import FrameReader
from tfn_platform.video_source import VideoError, open_video

MakeVideo = Callable[..., Path]


def test_times_are_exact_and_nothing_counts_as_bad(make_video: MakeVideo) -> None:
    rate = Fraction(30000, 1001)
    path = make_video("v.mp4", times_seconds=[n / rate for n in range(40)], rate=rate)
    with open_video(str(path)) as source:
        reader = FrameReader(source)
        starts = [timed.start_seconds for timed in reader]
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
