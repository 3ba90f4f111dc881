import logging
from collections import Counter
from pathlib import Path

import pytest

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.thumos14 import read_thumos14
from tfn_platform.errors import DataError

EXPECTED = [
    AnnotatedVideo("video_test_1", "validation", 10.0, ()),
    AnnotatedVideo(
        "video_test_2",
        "validation",
        None,
        (LabelledSegment("Diving", 0.5, 1.5), LabelledSegment("CliffDiving", 1.0, 2.0)),
    ),
]


def write_csv(folder: Path) -> None:
    (folder / "test_Annotation.csv").write_text(
        "video,type,type_idx,start,end,startFrame,endFrame\n"
        "video_test_2,CliffDiving,5,1.0,2.0,30,60\n"
        "video_test_2,Diving,8,0.5,1.5,15,45\n"
        "video_test_1,Ambiguous,0,3.0,4.0,90,120\n"
    )
    (folder / "test_video_info.csv").write_text(
        "video,fps,sample_fps,count,sample_count\nvideo_test_1,30.0,10.0,300.0,100\n"
    )


def write_text(folder: Path) -> None:
    (folder / "annotation_test").mkdir()
    for label, line in {
        "CliffDiving": "video_test_2  1.0 2.0\n",
        "Diving": "video_test_2  0.5 1.5\n\n",
        "Ambiguous": "video_test_1  3.0 4.0\n",
    }.items():
        (folder / "annotation_test" / f"{label}_test.txt").write_text(line)
    (folder / "annotation_test" / "detclasslist.txt").write_text("7 BaseballPitch\n")


def test_csv_and_text_files_say_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_csv(tmp_path)
    with caplog.at_level(logging.INFO):
        assert read_thumos14(tmp_path) == EXPECTED
    assert "left out 1 segments called Ambiguous" in caplog.text
    (tmp_path / "test_Annotation.csv").unlink()
    write_text(tmp_path)
    assert read_thumos14(tmp_path) == EXPECTED


def test_errors_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither val_Annotation.csv"):
        read_thumos14(tmp_path)
    write_text(tmp_path)
    path = tmp_path / "annotation_test" / "Diving_test.txt"
    path.write_text("video_test_2 0.5\n")
    with pytest.raises(DataError, match='Diving_test.txt, line 1 must be "video start end"'):
        read_thumos14(tmp_path)
    path.write_text("video_test_2 0.5 late\n")
    with pytest.raises(DataError, match="line 1.*must be a number of seconds, got 'late'"):
        read_thumos14(tmp_path)


@pytest.mark.parametrize("folder", ["thumos14", "thumos14/devkit"])
def test_the_real_files(shared_dir: Path, folder: str) -> None:
    """6,553 annotations, of them 89 + 99 ambiguous; one test video has no row of facts."""
    videos = read_thumos14(shared_dir / "data" / "annotations" / folder)
    assert Counter(video.subset for video in videos) == {"training": 200, "validation": 213}
    counts = Counter(video.subset for video in videos for _ in video.segments)
    assert counts == {"training": 3096 - 89, "validation": 3457 - 99}
    assert len({part.label for video in videos for part in video.segments}) == 20
    if folder == "thumos14":
        assert [v.video_id for v in videos if not v.duration_seconds] == ["video_test_0001292"]
