"""Files of all kinds are found by name, and nothing is opened."""

import os
from pathlib import Path

import pytest
from pyarrow import fs

from tests.s3_server import s3_endpoint, s3_root
from tfn_jobs import video_files
from tfn_jobs.video_files import file_sizes, is_folder, local_path, safe_uri, walk
from tfn_platform.errors import DataError
from tfn_platform.local_walk import FoundFile, walk_local
from tfn_platform.store import Store

__all__ = ["s3_endpoint", "s3_root"]


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


@pytest.mark.parametrize("max_depth", [None, 1])
def test_a_folder_of_this_machine_is_walked(odd: Path, max_depth: int | None) -> None:
    expected = list(walk_local(str(odd), max_depth=max_depth))
    assert list(walk(str(odd), max_depth=max_depth)) == expected


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: the videos cannot be listed"):
        list(walk(str(tmp_path / "nowhere"), max_depth=None))


def test_sizes_of_files(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_files, "NAMES_PER_TASK", 2)
    names = ["file.mp4", "deep", "pipe.mp4", "nothing.mp4", "none", "file.mp4", "bad\0name"]
    assert file_sizes([str(odd / name) for name in names]) == [5, None, None, None, None, 5, None]
    assert file_sizes([]) == []


def test_addresses() -> None:
    assert safe_uri("s3://b/a b#c[1].mp4") == "s3://b/a%20b%23c%5B1%5D.mp4"
    assert safe_uri("s3://b/a%20b.mp4") == "s3://b/a%20b.mp4"
    assert safe_uri("/data/a b.mp4") == "/data/a b.mp4"
    assert local_path("file:///data/a%20b") == "/data/a b"
    assert local_path("s3://b/a%20b") == "s3://b/a%20b"
    with pytest.raises(DataError, match=r"videos\?region=eu: options .* AWS_REGION and AWS_END"):
        safe_uri("s3://b/videos?region=eu")
    assert safe_uri("/data/what?.mp4") == "/data/what?.mp4"


KEYS = {"a b.mp4": b"1", "deep/100%+[x]#ü.mp4": b"22", "deep/er/c.mp4": b"333"}


@pytest.mark.parametrize("min_names_to_list", [1, 100])
def test_object_store(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, min_names_to_list: int
) -> None:
    monkeypatch.setattr(video_files, "MIN_NAMES_TO_LIST", min_names_to_list)
    store = Store.open(s3_root)
    for name, data in KEYS.items():
        store.write_bytes(name, data)
    files = {file for file in walk(s3_root, max_depth=None) if not file.is_folder}
    assert files == {FoundFile(name, len(data), False) for name, data in KEYS.items()}
    top = {file.path for file in walk(s3_root, max_depth=0)}
    assert top == {"a b.mp4", "deep"}
    assert is_folder(f"{s3_root}/deep") and not is_folder(f"{s3_root}/none")
    uris = [safe_uri(f"{s3_root}/{name.replace('%', '%25')}") for name in KEYS]
    assert file_sizes([*uris, f"{s3_root}/none.mp4", f"{s3_root}/deep"]) == [1, 2, 3, None, None]
    # What is made safe leads pyarrow back to the same object.
    for uri, data in zip(uris, KEYS.values(), strict=True):
        filesystem, path = fs.FileSystem.from_uri(uri)
        assert filesystem.open_input_file(path).read() == data
    with pytest.raises(DataError, match="cannot be listed"):
        list(walk(f"{s3_root}/nowhere", max_depth=None))
