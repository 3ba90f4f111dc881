"""Globs mean what they mean in a shell, also where there is no disk to ask."""

import glob
from pathlib import Path

import pytest

from tfn_jobs.glob_pattern import glob_filter, is_glob, split_glob
from tfn_platform.errors import DataError

FILES = [
    "a.mp4", "b.avi", "[1].mp4", "a]b.mp4", "x y.mp4", "ab.mp4", ".hidden.mp4", "a+b.mp4",
    "one/a.mp4", "one/two/b.mp4", "one/two/three/c.mp4", "one/.secret/d.mp4", "two/a.mkv",
    "!a.mp4", "a^.mp4", "back\\slash.mp4",
]  # fmt: skip
PATTERNS = [
    "*.mp4", "*", "**", "**/*.mp4", "**/*", "one/**/*.mp4", "one/**", "*/*", "*/a.*", "?.mp4",
    "a?.mp4", "[ab].*", "[!a].mp4", "[a-c]b.mp4", "[[]1].mp4", "a[]]b.mp4", "[]!]a.mp4", ".*",
    "**/two/*.mp4", "**/t*/**", "one/two/b.mp4*", "**/.*", "a**.mp4", "a[+]b.mp4", "a[^].mp4",
    "a[!^].mp4", "back[\\]slash.mp4", "[.]hidden.mp4", "*/*/*/*", "[x].mp4", "[a", "a[&&].mp4",
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_what_the_standard_library_finds(tree: Path, pattern: str) -> None:
    found = {
        name
        for name in glob.glob(pattern, root_dir=tree, recursive=True)
        if (tree / name).is_file()
    }
    files = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()]
    matches = glob_filter(pattern)
    assert {name for name in files if matches(name)} == found


def test_the_folder_ends_before_the_first_wildcard() -> None:
    assert split_glob("/data/set/**/*.mp4") == ("/data/set", "**/*.mp4")
    assert split_glob("/*.mp4") == ("/", "*.mp4")
    assert split_glob("s3://bucket/a/v_*/x.mp4") == ("s3://bucket/a", "v_*/x.mp4")


def test_a_question_mark_in_an_address_is_no_wildcard() -> None:
    assert is_glob("/data/?.mp4")
    assert not is_glob("s3://bucket/videos/what?.mp4")
    assert not is_glob("/data/videos")


@pytest.mark.parametrize("pattern", ["a[].mp4", "[z-a]*", "**/[!].mp4"])
def test_brackets_that_hold_nothing(pattern: str) -> None:
    """They ended in an error of the regular expressions."""
    with pytest.raises(DataError, match="brackets must hold characters"):
        glob_filter(pattern)
