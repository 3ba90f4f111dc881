"""The figures that results are judged by, in plain numpy."""

from collections.abc import Callable

from tfn_models.metrics.classification import top_k_accuracy
from tfn_models.metrics.columns import TIOUS, ScoredSegments, Segments
from tfn_models.metrics.detection_map import DetectionMap, detection_map
from tfn_models.metrics.proposal_recall import ProposalRecall, proposal_recall

METRICS: dict[str, Callable[..., object]] = {
    "detection": detection_map,
    "proposals": proposal_recall,
    "classification": top_k_accuracy,
}
"""The metric of each task; a new one is a file in this folder and a line here."""

__all__ = [
    "METRICS",
    "TIOUS",
    "DetectionMap",
    "ProposalRecall",
    "ScoredSegments",
    "Segments",
    "detection_map",
    "proposal_recall",
    "top_k_accuracy",
]
