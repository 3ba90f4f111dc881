"""Temporal non-maximum suppression of one video's segments: soft, hard, and voting."""

from tfn_models.nms.hard import hard_nms
from tfn_models.nms.kept import Kept
from tfn_models.nms.soft import DETECTION_NMS, RECALL_NMS, SoftNms, soft_nms
from tfn_models.nms.voting import vote_segments

__all__ = [
    "DETECTION_NMS",
    "RECALL_NMS",
    "Kept",
    "SoftNms",
    "hard_nms",
    "soft_nms",
    "vote_segments",
]
