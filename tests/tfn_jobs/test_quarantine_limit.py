"""A job goes on up to the share, and stops as soon as more is sure."""

from collections import Counter

import pytest

from tfn_jobs.quarantine_limit import QuarantineLimit
from tfn_platform.errors import StageError


def test_the_share_itself_is_fine() -> None:
    limit = QuarantineLimit(0.1, num_before=3, num_videos=97)
    limit.check(Counter(truncated=7))
    QuarantineLimit(0.0, num_before=0, num_videos=5).check(Counter())
    QuarantineLimit(1.0, num_before=5, num_videos=5).check(Counter(truncated=5))


def test_one_more_is_not_and_the_reasons_are_said() -> None:
    limit = QuarantineLimit(0.1, num_before=3, num_videos=97)
    with pytest.raises(StageError) as error:
        limit.check(Counter(truncated=5, timed_out=3))
    text = str(error.value)
    assert "11 of 100 videos cannot be used, 3 of them before this stage" in text
    assert "share of 0.1" in text and "truncated: 5, timed_out: 3" in text
    assert "what is finished is kept" in text
