from pathlib import Path

import pytest

from tfn_platform.datasets import DATASETS, read_dataset


def test_an_unknown_format_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="activitynet, activitynet_bmn, csv, hacs, thumos14"):
        read_dataset("kinetics", Path("x"))
    assert sorted(DATASETS) == list(DATASETS)
