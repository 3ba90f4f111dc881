"""Try a video again where the failure need not be its fault."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from tfn_platform.decode_process import DecodedVideo, DecodeProcess, DecodeRequest
from tfn_platform.video import FrameChunk, VideoError

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0

Result = TypeVar("Result")


def with_attempts(function: Callable[[], Result], *, max_attempts: int) -> tuple[Result, int]:
    """What `function` returns, and how many attempts it took.

    Raises:
        VideoError: of the last attempt, with `attempts`; anything else at once.
    """
    for attempt in _retrying(max_attempts):
        number = attempt.retry_state.attempt_number
        try:
            return function(), number
        except VideoError as error:
            error.attempts = number
            # Swallowed, with a wait, if there is to be another attempt.
            with attempt:
                raise
    raise AssertionError("the last attempt returns or raises")


def decode_patiently(
    process: DecodeProcess, request: DecodeRequest, *, max_attempts: int
) -> Iterator[FrameChunk | DecodedVideo]:
    """`process.decode(request)`, begun again where a failure is transient.

    Chunks that were given are not given again: decoding is deterministic. The last item says how
    many attempts there were.

    Raises:
        VideoError: of the last attempt, with `attempts`.
    """
    next_clip = 0
    for attempt in _retrying(max_attempts):
        number = attempt.retry_state.attempt_number
        try:
            for item in process.decode(request):
                if isinstance(item, DecodedVideo):
                    yield replace(item, attempts=number)
                elif item.first_clip >= next_clip:
                    next_clip = item.first_clip + item.num_clips
                    yield item
            return
        except VideoError as error:
            error.attempts = number
            with attempt:
                raise


def _retrying(max_attempts: int) -> Retrying:
    if max_attempts < 1:
        raise ValueError(f"max_attempts must be at least 1, got {max_attempts}")
    return Retrying(
        stop=stop_after_attempt(max_attempts),
        wait=wait_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS),
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, VideoError) and error.reason.is_transient
