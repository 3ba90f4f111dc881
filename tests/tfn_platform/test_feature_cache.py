"""A folder of bounded size: its numbers, its room, and what goes while it is looked at."""

import os
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tfn_platform.feature_cache import IN_USE_FILE, FeatureCache, reserve


@pytest.mark.parametrize("name", ["max_bytes", "num_threads"])
def test_numbers_below_one_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        FeatureCache(tmp_path, **{"max_bytes": 1, name: 0})


def test_the_room_of_a_part_is_taken_before_it_is_fetched(tmp_path: Path) -> None:
    """A file with holes finds out that the disk is full when it is too late."""
    with (tmp_path / "part").open("wb") as stream:
        reserve(stream.fileno(), 2**20)
        status = os.fstat(stream.fileno())
    assert status.st_size == 2**20 <= 512 * status.st_blocks


def test_files_that_go_while_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that gave up its part ended the count with FileNotFoundError."""
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for name in ("gone", "deep/stays", "stays"):
        (tmp_path / "set" / name).write_bytes(bytes(10))
    scan = os.scandir

    def losing(folder: Any) -> Any:
        entries = sorted(scan(folder), key=lambda entry: entry.name)
        if Path(folder).name == "set":
            (tmp_path / "set" / "gone").unlink()
        return nullcontext(entries)

    cache = FeatureCache(tmp_path, max_bytes=100)
    assert cache.used_bytes() == 30
    monkeypatch.setattr(os, "scandir", losing)
    assert cache.used_bytes() == 20


def test_each_file_is_looked_at_once_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files were counted again for each data set that was thrown out."""
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / IN_USE_FILE).touch()
        (tmp_path / str(number) / "part").write_bytes(bytes(10))
    listed: Counter[str] = Counter()
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda name: (listed.update([str(name)]), scan(name))[1])
    cache = FeatureCache(tmp_path, max_bytes=50)
    with cache.locked():
        assert cache.make_room(25)
    assert listed[str(tmp_path / "3")] == listed[str(tmp_path / "4")] == 1
    monkeypatch.undo()
    assert cache.used_bytes() == 20
