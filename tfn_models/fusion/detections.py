"""Detections of one video: its classes times its proposals (TFN section 1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Labelled segments of one video, best first."""

    segments: Tensor
    """[n, 2] start and end, in the proposals' unit."""
    labels: Tensor
    """[n] int64 class indices."""
    scores: Tensor
    """[n] class probability times proposal score."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        count = len(self.scores)
        if self.segments.shape != (count, 2) or self.labels.shape != (count,):
            raise ValueError(
                "segments must be [n, 2], labels and scores [n], got "
                f"{tuple(self.segments.shape)}, {tuple(self.labels.shape)}, "
                f"{tuple(self.scores.shape)}"
            )


def combine_detections(
    class_logits: Tensor,
    segments: Tensor,
    scores: Tensor,
    *,
    top_classes: int = 3,
    temperature_scale: float = 2.0,
    max_detections: int = 200,
) -> Detections:
    """Give each of N proposals the video's best classes and keep the best detections.

    Args:
        class_logits: [K] fused logits; probabilities are softmax(temperature_scale * logits).
        segments: [N, 2].
        scores: [N].
        top_classes: classes a proposal gets; all K when there are fewer.
        temperature_scale: above 1 sharpens the class probabilities.
        max_detections: kept, by score; ties by the proposal's order, then by the better class.

    Raises:
        ValueError: shapes do not fit, or a number is below 1.
    """
    if class_logits.dim() != 1 or scores.dim() != 1 or segments.shape != (len(scores), 2):
        raise ValueError(
            "class_logits must be [K], segments [N, 2] and scores [N], got "
            f"{tuple(class_logits.shape)}, {tuple(segments.shape)}, {tuple(scores.shape)}"
        )
    if top_classes < 1 or max_detections < 1:
        raise ValueError(
            f"top_classes and max_detections must be at least 1, got {top_classes} "
            f"and {max_detections}"
        )
    probabilities = (temperature_scale * class_logits.double()).softmax(dim=0)
    best = probabilities.argsort(descending=True, stable=True)[:top_classes]
    products = (scores.double().unsqueeze(1) * probabilities[best]).flatten()
    kept = products.argsort(descending=True, stable=True)[:max_detections]
    proposal = kept.div(len(best), rounding_mode="floor")
    return Detections(
        segments=segments[proposal], labels=best[kept % len(best)], scores=products[kept]
    )
