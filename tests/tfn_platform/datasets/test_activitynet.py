import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tfn_platform.datasets.activitynet import read_activitynet
from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.errors import DataError


def write(path: Path, database: Any) -> Path:
    path.write_text(json.dumps({"version": "1", "database": database}))
    return path


def test_all_the_dirt_of_real_files_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        {
            "strings": {
                "subset": "training",
                "duration": "12.5",
                "url": "https://example.org",
                "annotations": [{"label": "run", "segment": ["1.0", "2"]}],
            },
            "null": {"subset": "validation", "duration": None, "annotations": []},
            "testing": {"subset": "testing"},
        },
    )
    assert read_activitynet(path) == [
        AnnotatedVideo("strings", "training", 12.5, (LabelledSegment("run", 1.0, 2.0),)),
        AnnotatedVideo("null", "validation", None, ()),
        AnnotatedVideo("testing", "testing", None, ()),
    ]


SOUND = {"subset": "training", "duration": 5.0}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "video 'v' must be a JSON object"),
        ({"duration": 5.0}, "video 'v' lacks the key 'subset'; it has 'duration'"),
        ({"subset": 3}, "key 'subset' must be a string, got 3"),
        ({**SOUND, "duration": "long"}, "key 'duration' must be a number of seconds, got 'long'"),
        ({**SOUND, "duration": -1}, "duration_seconds must be positive"),
        ({**SOUND, "annotations": {"label": "run"}}, "key 'annotations' must be a JSON array"),
        ({**SOUND, "annotations": [{"label": "run"}]}, r"annotations\[0\] lacks the key 'segment'"),
        (
            {**SOUND, "annotations": [{"label": "run", "segment": [1]}]},
            r"annotations\[0\]\.segment must hold start and end",
        ),
        (
            {**SOUND, "annotations": [{"label": "run", "segment": [1, "x"]}]},
            r"annotations\[0\]\.segment\[1\] must be a number of seconds, got 'x'",
        ),
        (
            {**SOUND, "annotations": [{"label": "run", "segment": [2, 1]}]},
            r"annotations\[0\]: a segment must not end before it starts",
        ),
        (
            {**SOUND, "annotations": [{"label": None, "segment": [1, 2]}]},
            r"annotations\[0\]\.label must be a non-empty string, got None",
        ),
    ],
)
def test_errors_name_file_video_and_key(tmp_path: Path, entry: Any, message: str) -> None:
    path = write(tmp_path / "a.json", {"v": entry})
    with pytest.raises(DataError, match=message) as caught:
        read_activitynet(path)
    assert f"{path}: video 'v'" in str(caught.value)


def test_a_file_without_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"results": {}}')
    with pytest.raises(DataError, match="lacks the key 'database'; it has 'results'"):
        read_activitynet(path)


@pytest.mark.parametrize(
    ("name", "num_videos", "num_segments", "num_unknown_durations", "subsets"),
    [
        ("anet13/anet13_validation_4926.json", 4926, 7654, 198, {"validation": 4926}),
        (
            "anet12/activity_net.v1-2.min-missing-removed.json",
            8907,
            9869,
            0,
            {"training": 4441, "validation": 2198, "testing": 2268},
        ),
        ("thumos14/thumos_gt.json", 410, 6318, 410, {"train": 200, "test": 210}),
    ],
)
def test_real_files(
    shared_dir: Path,
    name: str,
    num_videos: int,
    num_segments: int,
    num_unknown_durations: int,
    subsets: dict[str, int],
) -> None:
    videos = read_activitynet(shared_dir / "data" / "annotations" / name)
    assert len(videos) == num_videos
    assert sum(len(video.segments) for video in videos) == num_segments
    assert sum(video.duration_seconds is None for video in videos) == num_unknown_durations
    assert Counter(video.subset for video in videos) == subsets
