from pathlib import Path

import pytest

from tfn_jobs.data_location import AnnotationFile, DataLocation, file_hash
from tfn_platform.datasets.annotated_video import AnnotatedVideo
from tfn_platform.errors import DataError


def location(folder: Path, annotations: str, *, layout: str = "activitynet") -> DataLocation:
    (folder / "videos").mkdir(exist_ok=True)
    (folder / "videos" / "always.mp4").touch()
    return DataLocation(
        (str(folder / "videos"),), AnnotationFile(layout, str(folder / annotations))
    )


def videos_in(folder: Path, *names: str) -> DataLocation:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12")
    return DataLocation((str(folder),))


def annotated(*video_ids: str, seconds: float | None = None) -> list[AnnotatedVideo]:
    return [AnnotatedVideo(video_id, "training", seconds, ()) for video_id in video_ids]


def test_fingerprint_follows_annotation_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    before = location(tmp_path, "a.json").fingerprint()
    assert location(tmp_path, "a.json").fingerprint() == before
    (tmp_path / "videos" / "x.mp4").write_bytes(b"1")
    with_file = location(tmp_path, "a.json").fingerprint()
    (tmp_path / "videos" / "notes.txt").write_text("not a video")
    assert location(tmp_path, "a.json").fingerprint() == with_file != before
    (tmp_path / "videos" / "x.mp4").write_bytes(b"12")
    with_other = location(tmp_path, "a.json").fingerprint()
    (tmp_path / "a.json").write_text("{} ")
    assert len({before, with_file, with_other, location(tmp_path, "a.json").fingerprint()}) == 4


def test_fingerprint_follows_what_a_manifest_says(tmp_path: Path) -> None:
    def fingerprint(text: str) -> str:
        (tmp_path / "list.csv").write_text(text)
        return DataLocation((f"{tmp_path}/list.csv",)).fingerprint()

    before = fingerprint("uri,video_id\n/a.mp4,a\n/b.mp4,b\n")
    assert fingerprint("video_id,note,uri\nb,x,/b.mp4\na,y,/a.mp4\n") == before
    assert fingerprint("uri,video_id\n/a.mp4,b\n/b.mp4,a\n") != before
    assert fingerprint("uri,video_id,duration_seconds\n/a.mp4,a,1\n/b.mp4,b,\n") != before


def test_fingerprint_of_an_annotation_folder(tmp_path: Path) -> None:
    """A layout that is a folder (THUMOS'14) could not be fingerprinted: it was read as one file."""
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "one.txt").write_text("1")
    place = location(tmp_path, "annotations", layout="thumos14")
    before = place.fingerprint()
    (folder / "one.txt").write_text("2")
    assert place.fingerprint() != before


def test_missing_places_are_named(tmp_path: Path) -> None:
    missing = AnnotationFile("activitynet", str(tmp_path / "none.json"))
    with pytest.raises(DataError, match=r"none\.json"):
        missing.read()
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        DataLocation((), missing).fingerprint()
    with pytest.raises(DataError, match="nowhere: the videos cannot be listed"):
        DataLocation((f"{tmp_path}/nowhere/*.mp4",)).fingerprint()


def test_ids_must_be_unique_where_nothing_says_which_videos_count(tmp_path: Path) -> None:
    place = videos_in(tmp_path, "a.mp4", "a.mkv", "b.mp4")
    with pytest.raises(DataError, match="'a' is both"):
        place.fingerprint()
    annotation = AnnotationFile("activitynet", "")
    found = DataLocation(place.videos, annotation).locate(annotated("b"))
    assert found["uri"].to_pylist() == [f"{tmp_path}/b.mp4"]


def test_annotated_videos_are_found_in_folders_below(tmp_path: Path) -> None:
    place = videos_in(tmp_path, "x.mp4", "deep/x.mkv", "deep/v_y.mp4", "deep/z.mp4", "deep/v_z.mp4")
    rows = place.locate(annotated("z", "y", "x", "none")).to_pylist()
    assert [(row["video_id"], row["uri"], row["size_bytes"]) for row in rows] == [
        ("none", f"{tmp_path}/none", None),
        # A file right in the folder has the very id.
        ("x", f"{tmp_path}/x.mp4", 2),
        ("y", f"{tmp_path}/deep/v_y.mp4", 2),
        ("z", f"{tmp_path}/deep/z.mp4", 2),
    ]
    assert {row["subset"] for row in rows} == {"training"}


def test_an_annotated_video_that_could_be_two_files_is_refused(tmp_path: Path) -> None:
    place = videos_in(tmp_path, "one/x.mp4", "two/x.mp4")
    with pytest.raises(DataError, match=r"'x' could be .*one/x\.mp4 or .*two/x\.mp4"):
        place.locate(annotated("x"))


def test_durations_to_expect(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,duration_seconds\na.mp4,4\nb.mp4,\n")
    place = DataLocation((f"{tmp_path}/list.csv",))
    expected = place.locate(annotated("a", "b"))["expected_seconds"].to_pylist()
    assert expected == [4, None]
    expected = place.locate(annotated("a", "c", seconds=3.5))["expected_seconds"].to_pylist()
    assert expected == [3.5, 3.5]
    assert place.locate([]).num_rows == 0


def test_file_hash_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"1")
    before = file_hash(str(tmp_path / "weights.pt"))
    (tmp_path / "weights.pt").write_bytes(b"2")
    assert file_hash(str(tmp_path / "weights.pt")) != before
    with pytest.raises(DataError, match=r"none\.pt"):
        file_hash(str(tmp_path / "none.pt"))
