import json
from collections import Counter
from pathlib import Path

import pytest

from tfn_platform.datasets.activitynet_bmn import read_activitynet_bmn
from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.errors import DataError

ENTRY = {"duration_second": 9.5, "annotations": [{"segment": [1, 2.5], "label": "Ballet"}]}


def write(folder: Path, entries: dict[str, object], rows: list[str]) -> Path:
    (folder / "anet_anno_action.json").write_text(json.dumps(entries))
    header = "video,numFrame,seconds,fps,rfps,subset,featureFrame"
    (folder / "video_info_new.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_the_two_files_are_joined(tmp_path: Path) -> None:
    empty = {"duration_second": 4.0, "annotations": []}
    rows = ["v_b,1,4.1,25,25,testing,1", "v_a,1,9.6,25,25,training,1"]
    folder = write(tmp_path, {"v_a": ENTRY, "v_b": empty}, rows)
    assert read_activitynet_bmn(folder) == [
        AnnotatedVideo("v_b", "testing", 4.0, ()),
        AnnotatedVideo("v_a", "training", 9.5, (LabelledSegment("Ballet", 1.0, 2.5),)),
    ]


def test_videos_that_one_file_lacks_are_named(tmp_path: Path) -> None:
    row = "v_a,1,9.6,25,25,training,1"
    with pytest.raises(DataError, match="line 2: video 'v_a' is not in"):
        read_activitynet_bmn(write(tmp_path, {}, [row]))
    with pytest.raises(DataError, match="1 videos have no row in video_info_new.csv.*'v_z'"):
        read_activitynet_bmn(write(tmp_path, {"v_a": ENTRY, "v_z": ENTRY}, [row]))
    with pytest.raises(DataError, match="video 'v_a' lacks the key 'duration_second'"):
        read_activitynet_bmn(write(tmp_path, {"v_a": {"annotations": []}}, [row]))


def test_the_real_files(shared_dir: Path) -> None:
    videos = read_activitynet_bmn(shared_dir / "data" / "annotations" / "anet13")
    subsets = Counter(video.subset for video in videos)
    assert subsets == {"training": 9649, "validation": 4728, "testing": 4851}
    assert len({part.label for video in videos for part in video.segments}) == 200
    assert sum(len(video.segments) for video in videos) == 22_152
