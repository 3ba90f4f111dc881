"""Every way to name videos, and what each is called afterwards."""

import os
from pathlib import Path

import pytest
from pyarrow import fs

from tests.s3_server import s3_endpoint, s3_root
from tfn_jobs import video_listing, video_manifest
from tfn_jobs.video_listing import LISTED, base_folder, list_videos
from tfn_platform.errors import DataError
from tfn_platform.store import Store

__all__ = ["s3_endpoint", "s3_root"]

FILES = {
    "b.mp4": 2, "A.MP4": 1, "deep/a.mkv": 3, "deep/er/c.d.avi": 4, "notes.txt": 5, "deep/x.json": 6,
    "._b.mp4": 7, ".cache/d.mp4": 8,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    return tmp_path


def rows_of(*sources: str) -> dict[str, tuple[str, int | None]]:
    rows = list_videos(sources).rows
    assert rows.schema == LISTED
    assert set(rows["subset"].to_pylist()) == {"all"}
    assert rows["expected_seconds"].null_count == rows.num_rows
    columns = [rows[name].to_pylist() for name in ("video_id", "uri", "size_bytes")]
    assert columns[0] == sorted(columns[0])
    return {video_id: (uri, size) for video_id, uri, size in zip(*columns, strict=True)}


@pytest.mark.parametrize("rows_per_batch", [1, 2, 100])
def test_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, rows_per_batch: int) -> None:
    monkeypatch.setattr(video_listing, "ROWS_PER_BATCH", rows_per_batch)
    expected = {
        "A": (f"{folder}/A.MP4", 1),
        "b": (f"{folder}/b.mp4", 2),
        "deep/a": (f"{folder}/deep/a.mkv", 3),
        "deep/er/c.d": (f"{folder}/deep/er/c.d.avi", 4),
    }
    assert rows_of(str(folder)) == expected
    assert rows_of(folder.as_uri()) == expected
    assert list_videos([str(folder)]).num_passed_over == 4


def test_what_is_no_regular_file_is_listed_to_be_tried(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    (folder / "gone.mp4").symlink_to("nothing")
    (folder / "segments.mp4").mkdir()
    found = rows_of(str(folder))
    assert {name: found[name][1] for name in ("pipe", "gone", "segments")} == dict.fromkeys(
        ("pipe", "gone", "segments")
    )


def test_glob(folder: Path) -> None:
    assert rows_of(f"{folder}/**/*.mp4") == {"b": (f"{folder}/b.mp4", 2)}
    assert list(rows_of(f"{folder}/*/*")) == ["deep/a", "deep/x"]
    assert list(rows_of(f"{folder}/deep/**/*.a*")) == ["er/c.d"]
    with pytest.raises(DataError, match=r"\*\.mov: no file matches"):
        rows_of(f"{folder}/*.mov")


def test_a_name_with_brackets_that_exists_is_no_glob(folder: Path) -> None:
    (folder / "[old]").mkdir()
    (folder / "[old]" / "v.mp4").touch()
    assert rows_of(f"{folder}/[old]") == {"v": (f"{folder}/[old]/v.mp4", 0)}


def test_files_are_tried_whatever_their_ending(folder: Path) -> None:
    assert rows_of(f"{folder}/notes.txt", f"{folder}/deep/a.mkv", f"{folder}/none.mp4") == {
        "a": (f"{folder}/deep/a.mkv", 3),
        "none": (f"{folder}/none.mp4", None),
        "notes": (f"{folder}/notes.txt", 5),
    }


def test_manifest(folder: Path) -> None:
    manifest = folder / "list.csv"
    manifest.write_text("path,subset,duration_seconds\nb.mp4,,\ndeep/er/c.d.avi,test,9\nno,x,\n")
    rows = list_videos([str(manifest)]).rows.to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("b", f"{folder}/b.mp4", "all", 2, None),
        ("c.d", f"{folder}/deep/er/c.d.avi", "test", 4, 9.0),
        ("no", f"{folder}/no", "x", None, None),
    ]


@pytest.mark.parametrize(("place", "looks"), [("/videos", [2, 2, 1]), ("s3://bucket/videos", [5])])
def test_a_manifest_is_looked_at_some_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, looks: list[int]
) -> None:
    """As Python objects all at once, half a million rows took 200 MB for a moment.

    In an object store they are looked at all at once: each look lists the whole folder.
    """
    for module in (video_listing, video_manifest):
        monkeypatch.setattr(module, "ROWS_PER_BATCH", 2)
    looked: list[list[str]] = []

    def look(uris: list[str]) -> list[int | None]:
        looked.append(uris)
        return [None if uri.endswith("v0.mp4") else int(uri[-5]) for uri in uris]

    monkeypatch.setattr(video_listing, "file_sizes", look)
    (tmp_path / "m.csv").write_text("\n".join(["uri", *(f"{place}/v{n}.mp4" for n in range(5))]))
    assert rows_of(f"{tmp_path}/m.csv") == {
        f"v{number}": (f"{place}/v{number}.mp4", number or None) for number in range(5)
    }
    assert [len(uris) for uris in looked] == looks


def test_sources_of_all_kinds_together(folder: Path) -> None:
    (folder / "list.csv").write_text("uri,video_id\nnotes.txt,n\n")
    found = rows_of(f"{folder}/deep", f"{folder}/*.MP4", f"{folder}/list.csv", f"{folder}/b.mp4")
    assert list(found) == ["A", "a", "b", "er/c.d", "n"]


def test_one_id_for_two_files_is_refused(folder: Path) -> None:
    (folder / "b.mkv").touch()
    listing = list_videos([str(folder)])
    with pytest.raises(DataError) as caught:
        listing.check_unique()
    text = str(caught.value)
    assert f"but 1 are of several files; 'b' is both {folder}/b.mkv" in text
    assert f"and {folder}/b.mp4" in text and "manifest" in text
    list_videos([f"{folder}/deep"]).check_unique()


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="there is no video, but 1 other files"):
        list_videos([str(tmp_path)])


def test_a_name_that_is_no_text_is_listed_and_will_not_be_found(tmp_path: Path) -> None:
    """Such a name could not be put into a table: one file would have ended the whole listing."""
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).touch()
    assert rows_of(str(tmp_path)) == {r"caf\xe9": (rf"{tmp_path}/caf\xe9.mp4", 0)}


def test_object_store(s3_root: str) -> None:
    store = Store.open(s3_root)
    for name, size in FILES.items():
        store.write_bytes(name, b"x" * size)
    store.write_bytes("deep/a b.mp4", b"12345678")
    store.write_bytes("list.csv", b"path\ndeep/a b.mp4\n")
    assert rows_of(s3_root) == {
        "A": (f"{s3_root}/A.MP4", 1),
        "b": (f"{s3_root}/b.mp4", 2),
        "deep/a": (f"{s3_root}/deep/a.mkv", 3),
        "deep/a b": (f"{s3_root}/deep/a%20b.mp4", 8),
        "deep/er/c.d": (f"{s3_root}/deep/er/c.d.avi", 4),
    }
    assert list(rows_of(f"{s3_root}/**/*.mp4")) == ["b", "deep/a b"]
    spaced = (f"{s3_root}/deep/a%20b.mp4", 8)
    assert rows_of(f"{s3_root}/list.csv") == rows_of(f"{s3_root}/deep/a b.mp4") == {"a b": spaced}


def test_folders_of_an_object_store_are_quoted_as_files_are(s3_root: str) -> None:
    """Their names went into addresses as they were, which nothing could open."""
    store = Store.open(s3_root)
    store.write_bytes("ä folder/a b.mp4", b"1")
    expected = {"a b": (f"{s3_root}/%C3%A4%20folder/a%20b.mp4", 1)}
    for folder in (f"{s3_root}/ä folder", f"{s3_root}/%C3%A4%20folder"):
        assert rows_of(folder) == expected
        assert rows_of(f"{folder}/*.mp4") == expected
        assert rows_of(f"{folder}/a b.mp4") == expected
        assert base_folder(folder) == f"{s3_root}/%C3%A4%20folder"
    ((uri, _),) = expected.values()
    filesystem, path = fs.FileSystem.from_uri(uri)
    assert filesystem.open_input_file(path).read() == b"1"


@pytest.mark.parametrize("place", ["videos", "videos/*.mp4", "a.mp4", "list.csv"])
def test_options_of_addresses_are_refused(place: str) -> None:
    """They were dropped on the way to the files, or became a part of a name."""
    with pytest.raises(DataError, match="AWS_REGION and AWS_ENDPOINT_URL"):
        list_videos([f"s3://bucket/{place}?region=eu-west-1"])


def test_names_from_files_in_an_object_store_are_not_encoded(s3_root: str) -> None:
    store = Store.open(s3_root)
    store.write_bytes("a b.mp4", b"1")
    store.write_bytes("list.csv", b"path\na b.mp4\n/data/x.mp4\n")
    found = rows_of(f"{s3_root}/list.csv")
    assert list(found) == ["a b", "x"]
    # A path of the machine's own, in a manifest that is not.
    assert found["x"] == ("/data/x.mp4", None)


def test_base_folder() -> None:
    assert base_folder("/data/videos") == "/data/videos"
    assert base_folder("/data/*/x.mp4") == "/data"
    assert base_folder("/data/list.csv") == base_folder("/data/one.mp4") == "/data"
