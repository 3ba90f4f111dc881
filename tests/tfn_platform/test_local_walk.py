"""Every file below a folder is found once, and links lead nowhere twice."""

import os
from pathlib import Path

import pytest

from tfn_platform.local_walk import FoundFile, look_at, walk_local


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with one of each kind."""
    folder = tmp_path / "odd"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "file.mp4").write_bytes(b"12345")
    (folder / "deep" / "er" / "empty.mp4").touch()
    (folder / "link.mp4").symlink_to(folder / "file.mp4")
    (folder / "nothing.mp4").symlink_to(folder / "gone")
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "deep" / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.mp4")
    return folder


def test_each_file_and_folder_once(odd: Path) -> None:
    assert sorted(walk_local(str(odd))) == sorted(
        [
            FoundFile("file.mp4", 5, False),
            FoundFile("link.mp4", 5, False),
            # pyarrow's own listing leaves out the next two.
            FoundFile("nothing.mp4", None, False),
            FoundFile("itself.mp4", None, False),
            FoundFile("pipe.mp4", None, False),
            FoundFile("deep", None, True),
            FoundFile("deep/er", None, True),
            FoundFile("deep/er/empty.mp4", 0, False),
            # A link to a folder above is seen, and not gone into for ever.
            FoundFile("deep/up", None, True),
        ]
    )


@pytest.mark.parametrize("max_depth", [0, 1, 2, 3])
def test_no_deeper_than_asked(odd: Path, max_depth: int) -> None:
    expected = {file for file in walk_local(str(odd)) if file.path.count("/") <= max_depth}
    assert set(walk_local(str(odd), max_depth=max_depth)) == expected


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(walk_local(str(tmp_path / "nowhere")))


def test_a_single_look(odd: Path) -> None:
    names = ["file.mp4", "deep", "nothing.mp4", "pipe.mp4", "bad\0name"]
    found = [look_at(str(odd / name)) for name in names]
    assert found == [(5, False), (None, True), (None, False), (None, False), (None, False)]
