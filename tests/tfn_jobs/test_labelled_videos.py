from dataclasses import replace

import pytest
import torch

from tests.tfn_jobs.small_pipeline import PREPARE, SmallPipeline, some_videos
from tfn_jobs.labelled_videos import LabelledVideo, read_labelled_videos
from tfn_platform.errors import TableError
from tfn_platform.store import Store


def test_usable_videos_with_their_segments(small: SmallPipeline) -> None:
    labelled = read_labelled_videos(small.folder(PREPARE), training_subset="training")
    assert labelled.class_names == ("jump", "run", "swim")
    by_name = {video.video_id: video for video in small.videos}
    # The last one has no file.
    assert [v.video_id for v in labelled.videos] == sorted(by_name)[:-1]
    for video in labelled.videos:
        expected = by_name[video.video_id].segments
        assert [labelled.class_names[label] for label in video.labels] == [s[0] for s in expected]
        assert video.segments.tolist() == [[start, end] for _, start, end in expected]
        assert video.segments.dtype == torch.float64
    assert len(labelled.of_subset("training")) == 4
    assert len(labelled.of_subset("validation")) == 8


def test_classes_that_are_not_trained_on_are_left_out(store: Store) -> None:
    videos = some_videos()
    strange = ("yawn", 0.0, 1.0)
    videos[5] = replace(videos[5], segments=(strange, videos[5].segments[0]))
    videos[6] = replace(videos[6], segments=(strange,))
    small = SmallPipeline.make(store, videos)
    labelled = read_labelled_videos(small.folder(PREPARE), training_subset="training")
    assert labelled.class_names == ("jump", "run", "swim")
    found = {video.video_id: len(video.labels) for video in labelled.videos}
    assert found["video05"] == 1 and "video06" not in found


def test_main_label_has_the_most_seconds() -> None:
    times = torch.tensor([[0.0, 3.0], [4.0, 6.0], [7.0, 9.0]], dtype=torch.float64)

    def labelled(*labels: int) -> LabelledVideo:
        return LabelledVideo("a", "", "training", 10.0, labels, times)

    assert labelled(0, 1, 1).main_label == 1
    assert labelled(2, 1, 0).main_label == 2
    # Of equal ones the first class.
    assert LabelledVideo("a", "", "", 9.0, (2, 1), times[1:]).main_label == 1
    assert labelled(0, 1, 1).segments_of_at_least(2.5).tolist() == [[0.0, 3.0]]
    assert len(labelled(0, 1, 1).segments_of_at_least(2.0)) == 3


def test_needs_a_finished_stage(store: Store) -> None:
    with pytest.raises(TableError, match="has not finished"):
        read_labelled_videos(PREPARE.folder(store), training_subset="training")
