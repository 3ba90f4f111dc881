"""Class scores × proposals as a DETECTIONS table, and that as ActivityNet JSON."""

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch

from tfn_jobs.pipeline_spec import FusionSpec
from tfn_jobs.proposal_tables import VideoProposals
from tfn_models.fusion.detections import combine_detections
from tfn_platform.tables import DETECTIONS

DETECTIONS_FILE = "detections.json"


def detect(
    video_ids: Sequence[str],
    logits: torch.Tensor,
    proposals: Mapping[str, VideoProposals],
    *,
    fusion: FusionSpec,
    class_names: Sequence[str],
) -> pa.Table:
    """Class scores × proposals: logits [V, K] of the videos and their proposals -> DETECTIONS."""
    columns: dict[str, list[object]] = {name: [] for name in DETECTIONS.schema.names}
    for video_id, scores in zip(video_ids, logits, strict=True):
        if video_id not in proposals:
            continue
        found = combine_detections(
            scores.double(),
            proposals[video_id].segments,
            proposals[video_id].scores,
            top_classes=min(fusion.top_classes, len(class_names)),
            max_detections=fusion.detections_per_video,
        )
        columns["video_id"] += [video_id] * len(found.scores)
        columns["label"] += [class_names[label] for label in found.labels.tolist()]
        columns["start_seconds"] += found.segments[:, 0].tolist()
        columns["end_seconds"] += found.segments[:, 1].tolist()
        columns["score"] += found.scores.tolist()
    return pa.table(columns, schema=DETECTIONS.schema)


def activitynet_json(detections: pa.Table) -> bytes:
    """DETECTIONS in ActivityNet's result layout."""
    results: dict[str, list[dict[str, object]]] = {}
    for row in detections.to_pylist():
        results.setdefault(row["video_id"], []).append(
            {
                "label": row["label"],
                "score": row["score"],
                "segment": [row["start_seconds"], row["end_seconds"]],
            }
        )
    content = {"version": "1.3", "results": results, "external_data": {}}
    return json.dumps(content, indent=1).encode()
