"""One warning, and a bounded number of lines however many reasons there are."""

from collections import Counter

import pytest

from tfn_jobs.nvdec_report import MAX_LINES, NO_ENGINE, NvdecReport


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("tfn_jobs.nvdec_report.say", lines.append)
    return lines


def test_nothing_is_said_of_nothing(said: list[str]) -> None:
    report = NvdecReport(Counter())
    report.warn()
    report.sum_up()
    assert said == []


def test_a_machine_without_nvdec_is_told_once_and_at_once(said: list[str]) -> None:
    fallbacks: Counter[str] = Counter()
    report = NvdecReport(fallbacks)
    fallbacks["an odd codec"] += 1
    report.warn()
    assert said == []
    fallbacks[f"{NO_ENGINE}one reason"] += 1
    report.warn()
    fallbacks[f"{NO_ENGINE}another reason"] += 1
    report.warn()
    assert len(said) == 1 and "one reason" in said[0]


def test_the_sum_lists_the_most_frequent_reasons_and_counts_the_others(said: list[str]) -> None:
    """Reasons hold numbers of one video at times: a line for each could be endless."""
    fallbacks = Counter({"codec [x]": 1000, **{f"odd {n}": 10 - n for n in range(8)}})
    NvdecReport(fallbacks).sum_up()
    assert len(said) == MAX_LINES + 1
    assert said[0] == r"extract: PyAV decoded 1000 videos instead of NVDEC: codec \[x]"
    assert said[1] == "extract: PyAV decoded 10 videos instead of NVDEC: odd 0"
    # 6 + 5 + 4 + 3
    assert said[-1] == (
        "extract: PyAV decoded 18 videos instead of NVDEC for 4 other reasons, such as: odd 4"
    )
