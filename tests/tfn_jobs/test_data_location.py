from pathlib import Path

import pytest

from tfn_jobs.data_location import DataLocation, file_hash, read_annotations, video_sizes
from tfn_platform.errors import DataError


def location(folder: Path, annotations: str, *, layout: str = "activitynet") -> DataLocation:
    (folder / "videos").mkdir(exist_ok=True)
    return DataLocation(layout, str(folder / annotations), str(folder / "videos"), 0.1)


def test_fingerprint_follows_annotation_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    place = location(tmp_path, "a.json")
    before = place.fingerprint()
    assert place.fingerprint() == before
    (tmp_path / "videos" / "x.mp4").write_bytes(b"1")
    with_file = place.fingerprint()
    (tmp_path / "videos" / "notes.txt").write_text("not a video")
    assert place.fingerprint() == with_file != before
    (tmp_path / "a.json").write_text("{} ")
    assert place.fingerprint() not in (before, with_file)


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
    with pytest.raises(DataError, match=r"none\.json"):
        read_annotations(location(tmp_path, "none.json"))
    with pytest.raises(DataError, match="nowhere: the videos cannot be listed"):
        video_sizes(str(tmp_path / "nowhere"))


def test_file_hash_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"1")
    before = file_hash(str(tmp_path / "weights.pt"))
    (tmp_path / "weights.pt").write_bytes(b"2")
    assert file_hash(str(tmp_path / "weights.pt")) != before
    with pytest.raises(DataError, match=r"none\.pt"):
        file_hash(str(tmp_path / "none.pt"))
