from dataclasses import replace

import pyarrow as pa

from tests.tfn_jobs.small_pipeline import PREPARE, SmallPipeline, some_videos
from tfn_jobs.ground_truth import read_ground_truth
from tfn_platform.store import Store
from tfn_platform.tables import DETECTIONS, PROPOSALS


def make(store: Store) -> SmallPipeline:
    videos = some_videos()
    videos[6] = replace(videos[6], segments=(("climb", 0.0, 1.0), ("jump", 1.0, 2.0)))
    return SmallPipeline.make(store, videos)


def test_truth_is_complete(store: Store) -> None:
    """A class that nobody was trained on, and a video that has no file, count too."""
    small = make(store)
    truth = read_ground_truth(
        small.folder(PREPARE), subset="validation", class_names=("jump", "run", "swim")
    )
    assert truth.class_names == ("jump", "run", "swim", "climb")
    expected = [video for video in small.videos if video.subset == "validation"]
    assert list(truth.video_ids) == [video.video_id for video in expected]
    found = [
        (truth.video_ids[video], truth.class_names[label], start, end)
        for video, label, start, end in zip(
            truth.segments.video,
            truth.segments.label,
            truth.segments.start,
            truth.segments.end,
            strict=True,
        )
    ]
    assert sorted(found) == sorted((v.video_id, *s) for v in expected for s in v.segments)
    names = [{truth.class_names[label] for label in own} for own in truth.labels_of_videos()]
    assert names == [{label for label, _, _ in video.segments} for video in expected]


def test_predictions_get_the_numbers_of_the_truth(store: Store) -> None:
    truth = read_ground_truth(
        make(store).folder(PREPARE), subset="validation", class_names=("jump", "run", "swim")
    )
    rows = {
        "video_id": ["video06", "elsewhere", "video04"],
        "label": ["climb", "jump", "unheard of"],
        "start_seconds": [0.0, 1.0, 2.0],
        "end_seconds": [1.0, 2.0, 3.0],
        "score": [0.5, 0.6, 0.7],
    }
    scored = truth.number(pa.table(rows, schema=DETECTIONS.schema))
    assert scored.video.tolist() == [2, len(truth.video_ids), 0]
    assert scored.label.tolist() == [3, 0, len(truth.class_names)]
    assert scored.start.tolist() == rows["start_seconds"]
    assert scored.score.tolist() == rows["score"]
    del rows["label"]
    unlabelled = pa.table({**rows, "member": [""] * 3, "rank": [0] * 3}, schema=PROPOSALS.schema)
    assert truth.number(unlabelled).label.tolist() == [0, 0, 0]
