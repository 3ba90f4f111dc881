import json
import math

import pytest
import torch

from tests.tfn_jobs.small_pipeline import CLASS_NAMES, FUSION
from tfn_jobs.detection_tables import activitynet_json, detect
from tfn_jobs.proposal_tables import VideoProposals
from tfn_platform.tables import DETECTIONS

LOGITS = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 5.0], [1.0, 0.0, 0.0]])
PROPOSALS = {
    "a": VideoProposals(torch.tensor([[0.0, 2.0], [1.0, 4.0]]).double(), torch.tensor([0.9, 0.5])),
    "b": VideoProposals(torch.tensor([[2.0, 3.0]]).double(), torch.tensor([1.0])),
}


def test_classes_times_proposals() -> None:
    fusion = FUSION.model_copy(update={"top_classes": 2})
    table = detect(["a", "b", "empty"], LOGITS, PROPOSALS, fusion=fusion, class_names=CLASS_NAMES)
    assert table.schema.equals(DETECTIONS.schema)
    rows = table.to_pylist()
    assert len(rows) == 2 * 2 + 1 * 2
    assert {row["video_id"] for row in rows} == {"a", "b"}
    best = rows[0]
    assert (best["label"], best["start_seconds"], best["end_seconds"]) == ("jump", 0.0, 2.0)
    assert {row["label"] for row in rows if row["video_id"] == "a"} == {"jump", "swim"}
    scores = [row["score"] for row in rows if row["video_id"] == "a"]
    assert scores == sorted(scores, reverse=True) and all(math.isfinite(s) for s in scores)


@pytest.mark.parametrize(("limit", "expected"), [(1, 2), (3, 6), (100, 9)])
def test_detections_are_limited_by_the_video(limit: int, expected: int) -> None:
    fusion = FUSION.model_copy(update={"detections_per_video": limit, "top_classes": 9})
    table = detect(["a", "b"], LOGITS[:2], PROPOSALS, fusion=fusion, class_names=CLASS_NAMES)
    assert table.num_rows == expected


def test_activitynet_layout_holds_every_row() -> None:
    table = detect(["b", "a"], LOGITS[:2], PROPOSALS, fusion=FUSION, class_names=CLASS_NAMES)
    content = json.loads(activitynet_json(table))
    assert set(content) == {"version", "results", "external_data"}
    rows = [
        {
            "video_id": video_id,
            "label": entry["label"],
            "start_seconds": entry["segment"][0],
            "end_seconds": entry["segment"][1],
            "score": entry["score"],
        }
        for video_id, entries in content["results"].items()
        for entry in entries
    ]
    assert rows == table.to_pylist()
