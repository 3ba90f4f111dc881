from pathlib import Path

import pytest

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.csv_table import read_csv_table
from tfn_platform.errors import DataError

HEADER = "video_id,subset,duration_seconds,label,start_seconds,end_seconds\n"


def write(path: Path, rows: str) -> Path:
    path.write_text(HEADER + rows)
    return path


def test_rows_become_videos(tmp_path: Path) -> None:
    rows = "b,training,10,run,1,2\na,validation,,,,\nb,training,10,jump,0.5,3\n"
    assert read_csv_table(write(tmp_path / "a.csv", rows)) == [
        AnnotatedVideo(
            "b",
            "training",
            10.0,
            (LabelledSegment("run", 1.0, 2.0), LabelledSegment("jump", 0.5, 3.0)),
        ),
        AnnotatedVideo("a", "validation", None, ()),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,training,10,,,\na,training,11,,,\n", "line 3: video 'a' has another .* line 2"),
        ("a,training,10,run,1,\n", r"line 2\.segment\[1\] must be a number"),
        ("a,training,10,,1,2\n", r"line 2\.label must be a non-empty string"),
        (",training,10,run,1,2\n", "line 2: video_id must not be empty"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv_table(write(tmp_path / "a.csv", rows))
