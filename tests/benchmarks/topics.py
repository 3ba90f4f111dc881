"""What is compared, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.benchmarks import bmn_step, detection_map, label_maps, proposal_recall, soft_nms
from tests.benchmarks.measure import Comparison

CPU_TOPICS: dict[str, Callable[..., list[Comparison]]] = {
    "label_maps": label_maps.comparisons,
    "soft_nms": soft_nms.comparisons,
    "proposal_recall": proposal_recall.comparisons,
    "detection_map": detection_map.comparisons,
}
"""What runs on a CPU whatever the device."""

TOPICS = ("bmn_step", *CPU_TOPICS)


def comparisons(topic: str, *, small: bool, device: torch.device) -> list[Comparison]:
    """Set the work of one topic up; `small` for sizes that take no time."""
    if topic == "bmn_step":
        return bmn_step.comparisons(small=small, device=device)
    return CPU_TOPICS[topic](small=small)
