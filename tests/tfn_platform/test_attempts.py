from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tfn_platform import attempts
from tfn_platform.attempts import decode_patiently, with_attempts
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.decode_process import DecodedVideo, DecodeProcess, DecodeRequest
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video import FrameChunk, SamplingGrid, VideoError

GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=8, short_side=32)
REQUEST = DecodeRequest("video.mp4", GRID, True, 1, 1, False)
FAULTY_READER = Path(__file__).resolve().parent.parent / "faulty_reader"
CRASH = VideoError(QuarantineReason.DECODER_CRASHED, "video.mp4: died")
DAMAGE = VideoError(QuarantineReason.NOT_A_VIDEO, "video.mp4: noise")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT_SECONDS", 0)


class Script:
    """Gives one outcome after the other."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)

    def __call__(self) -> object:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class ScriptedProcess:
    """Each attempt gives so many chunks of one clip and then ends as told."""

    def __init__(self, *attempts: tuple[int, Exception | None]) -> None:
        self.attempts = list(attempts)

    def decode(self, request: DecodeRequest) -> Iterator[FrameChunk | DecodedVideo]:
        num_chunks, error = self.attempts.pop(0)
        for clip in range(num_chunks):
            yield FrameChunk(0, clip, 1, np.full((8, 2, 2, 3), clip, np.uint8))
        if error:
            raise error
        yield DecodedVideo(num_chunks, Fraction(num_chunks, 2), 100)


def test_transient_failures_are_tried_again() -> None:
    assert with_attempts(Script("good"), max_attempts=3) == ("good", 1)
    assert with_attempts(Script(CRASH, CRASH, "good"), max_attempts=3) == ("good", 3)


def test_the_last_failure_is_raised_with_its_number() -> None:
    with pytest.raises(VideoError) as caught:
        with_attempts(Script(CRASH, CRASH, "good"), max_attempts=2)
    assert caught.value is CRASH and caught.value.attempts == 2
    with pytest.raises(VideoError) as caught:
        with_attempts(Script(CRASH, DAMAGE, "good"), max_attempts=5)
    assert caught.value is DAMAGE and caught.value.attempts == 2


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(KeyError):
        with_attempts(Script(KeyError("x"), "good"), max_attempts=5)
    with pytest.raises(ValueError, match="max_attempts must be at least 1, got 0"):
        with_attempts(Script("good"), max_attempts=0)


def test_chunks_are_given_once() -> None:
    process = ScriptedProcess((3, CRASH), (1, CRASH), (5, None))
    items = list(decode_patiently(process, REQUEST, max_attempts=3))  # type: ignore[arg-type]
    *chunks, end = items
    assert [chunk.first_clip for chunk in chunks if isinstance(chunk, FrameChunk)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert end == DecodedVideo(5, Fraction(5, 2), 100, attempts=3)


def test_damage_after_a_crash_counts_both_attempts() -> None:
    process = ScriptedProcess((3, CRASH), (4, DAMAGE), (5, None))
    items = decode_patiently(process, REQUEST, max_attempts=3)  # type: ignore[arg-type]
    with pytest.raises(VideoError) as caught:
        list(items)
    assert caught.value is DAMAGE and caught.value.attempts == 2


def test_a_consumer_may_stop() -> None:
    process = ScriptedProcess((3, CRASH), (5, None))
    items = decode_patiently(process, REQUEST, max_attempts=3)  # type: ignore[arg-type]
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert len(process.attempts) == 1


@pytest.mark.parametrize("fault", ["crash", "hang"])
def test_a_file_that_fails_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    config = SyntheticConfig(
        num_training=1, min_duration_seconds=2, max_duration_seconds=3, min_short_side=32
    )
    path = tmp_path / f"{fault}_once.mp4"
    path.write_bytes(render_video(config, 0).data)
    monkeypatch.syspath_prepend(str(FAULTY_READER))
    request = DecodeRequest(str(path), GRID, True, 1, 1, False)
    with DecodeProcess(stall_seconds=2) as process:
        *chunks, end = decode_patiently(process, request, max_attempts=2)
    assert isinstance(end, DecodedVideo)
    assert (end.num_clips, end.attempts) == (len(chunks), 2)
