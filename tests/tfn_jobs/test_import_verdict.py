"""What is refused is said with the ten worst videos, and with the stride that would fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tfn_jobs.small_import import parsed
from tfn_jobs.import_verdict import Findings, check_all, check_lengths, fits, misfits
from tfn_platform.errors import DataError

STRIDE = 8 / 15


def findings(*, stride: float = STRIDE, count: int = 40) -> Findings:
    durations = np.random.default_rng(0).uniform(20, 200, count)
    names = [f"v{number:02d}" for number in range(count)]
    clips = {name: round(float(d) / stride) for name, d in zip(names, durations, strict=True)}
    return Findings(dict(zip(names, durations.tolist(), strict=True)), clips)


def verdict(folder: Path, found: Findings, *missing: str, **changes: Any) -> dict[str, str]:
    return check_all(parsed(folder, **changes), found, missing=missing)


def test_all_is_well(tmp_path: Path) -> None:
    assert verdict(tmp_path, findings()) == {}


def test_a_wrong_stride_names_the_right_one_and_the_ten_worst(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        verdict(tmp_path, findings(stride=0.5))
    lines = str(caught.value).splitlines()
    assert "contradict stride_seconds 8/15" in lines[0]
    assert lines[1] == "  stride_seconds 1/2 fits 40 of 40 videos"
    assert lines[2].split() == ["video", "clips", "duration", "s", "a", "clip", "off"]
    rows = [line.split() for line in lines[3:]]
    assert len(rows) == 10
    found = findings(stride=0.5)
    off = [float(row[-2]) for row in rows]
    assert off == sorted(off, reverse=True)
    longest = max(found.durations, key=lambda name: found.durations[name] or 0)
    assert rows[0][0] == longest


def test_single_videos_of_wrong_length_are_refused_or_left_out(tmp_path: Path) -> None:
    found = findings()
    found.num_clips["v03"] = 2
    found.num_clips["v30"] *= 2
    with pytest.raises(
        DataError, match="2 of 41 videos cannot be imported: 0 have|1 have"
    ) as caught:
        verdict(tmp_path, found, "gone")
    assert "without features: gone" in str(caught.value)
    reasons = verdict(tmp_path, found, "gone", max_refused_share=0.1)
    assert reasons == {
        "gone": "missing_file",
        "v03": "duration_mismatch",
        "v30": "duration_mismatch",
    }
    wrong = misfits(parsed(tmp_path), found)
    assert set(wrong) == {"v03", "v30"}
    assert wrong["v03"].startswith("2 clips of 0.5333 s, video ")


def test_damaged_features_are_refused_whatever_the_share(tmp_path: Path) -> None:
    found = findings()
    found.damaged["bad"] = "3 NaN and 0 infinite of 9 values"
    with pytest.raises(DataError, match="(?s)1 of 41 videos.*leave_out.*bad: 3 NaN"):
        verdict(tmp_path, found, max_refused_share=0.9)


def test_unknown_durations_are_not_checked(tmp_path: Path) -> None:
    found = findings()
    unknown = Findings(dict.fromkeys(found.durations), {name: 1 for name in found.num_clips})
    assert verdict(tmp_path, unknown) == {}
    check_lengths(parsed(tmp_path), unknown, looked_at="none")
    assert fits(parsed(tmp_path), num_clips=1, duration=None)
    assert not fits(parsed(tmp_path), num_clips=1, duration=100.0)


def test_a_stride_inside_every_tolerance_is_still_found(tmp_path: Path) -> None:
    """A generous tolerance hides 6 % in each video; the slope over all does not."""
    found = findings(stride=0.5)
    assert misfits(parsed(tmp_path, tolerance_share=0.2), found) == {}
    with pytest.raises(DataError, match="stride_seconds 1/2 fits 40 of 40"):
        verdict(tmp_path, found, tolerance_share=0.2)
