"""What a Refine Network gives: each stage of its cascade, and the Action Score."""

from dataclasses import dataclass

from torch import Tensor

from tfn_models.refine.offsets import OffsetScales


@dataclass(frozen=True)
class RefineStage:
    """What one stage of the cascade did with B videos of N proposals; segments in clips."""

    input_segments: Tensor
    """[B, N, 2] what the stage was given; its features, IoU and offsets belong to these."""
    segments: Tensor
    """[B, N, 2] where it moved them; the next stage's input. Carries no gradient."""
    iou: Tensor
    """[B, N] predicted IoU of the input segments with ground truth, in 0..1."""
    offsets: Tensor
    """[B, N, 4] predicted moves, see `offsets`."""
    positive_iou: float
    """IoU with ground truth from which this stage learns to move a proposal."""

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        batch, count = self.iou.shape
        for name, last in (("input_segments", 2), ("segments", 2), ("offsets", 4)):
            shape = getattr(self, name).shape
            if shape != (batch, count, last):
                raise ValueError(f"{name} must be {[batch, count, last]}, got {list(shape)}")


@dataclass(frozen=True)
class RefineOutput:
    """All stages of the cascade, first to last, and the Action Score."""

    stages: tuple[RefineStage, ...]
    action_logits: Tensor | None
    """[B, T] before the sigmoid, or None without an Action Score head."""
    offset_scales: OffsetScales
    """The units of all offsets."""

    @property
    def action_score(self) -> Tensor | None:
        """[B, T] probability that a clip shows an action, or None without that head."""
        return None if self.action_logits is None else self.action_logits.sigmoid()
