"""The loss of a Refine Network: offsets and IoU of each stage, and the Action Score.

The paper (section 1.3) names the targets only; the terms are those of TCANet, with seeded
sampling, and averaged so that a batch without positives gives zero instead of NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tfn_models.refine.output import RefineOutput, RefineStage
from tfn_models.refine.targets import (
    StageTargets,
    action_targets,
    pad_ground_truth,
    stage_targets,
)


@dataclass(frozen=True)
class RefineLossConfig:
    """Weights of the loss terms, and what counts as far from any action."""

    offset_weight: float = 1.0
    """Weight of the offset term."""
    iou_weight: float = 1.0
    """Weight of the IoU term."""
    action_weight: float = 1.0
    """Weight of the Action Score term."""
    negative_iou: float = 0.3
    """IoU up to which a segment counts as background when the IoU term is sampled."""


@dataclass(frozen=True)
class RefineLoss:
    """Scalars: the weighted total, and its terms before weighting, summed over the stages."""

    total: Tensor
    offsets: Tensor
    iou: Tensor
    action: Tensor
    """Zero without an Action Score head."""


def refine_loss(
    output: RefineOutput,
    ground_truth: Sequence[Tensor],
    *,
    mask: Tensor,
    proposal_mask: Tensor,
    generator: torch.Generator,
    config: RefineLossConfig | None = None,
) -> RefineLoss:
    """The loss of a batch of B videos. Each stage is matched anew with ground truth.

    What comes in half precision is compared in fp32.

    Args:
        output: of the network.
        ground_truth: for each video [G, 2] in clips, G may be 0.
        mask: [B, T] bool, True for clips.
        proposal_mask: [B, N] bool, True for proposals.
        generator: for the sampling of the IoU term. One on the CPU samples the same for a network
            on any device.
        config: weights; None for the defaults.

    Raises:
        ValueError: the ground truth is not that of these videos, or has a wrong shape or no width.
    """
    config = config or RefineLossConfig()
    offsets = iou = action = mask.new_zeros((), dtype=torch.float32)
    truth = pad_ground_truth(ground_truth, like=output.stages[0].input_segments)
    for stage in output.stages:
        targets = stage_targets(stage.input_segments, truth, scales=output.offset_scales)
        offsets = offsets + offset_loss(stage, targets, proposal_mask=proposal_mask)
        chosen = balanced_sample(
            targets.iou,
            proposal_mask,
            positive_iou=stage.positive_iou,
            negative_iou=config.negative_iou,
            generator=generator,
        )
        iou = iou + _mean_where(_smooth_l1(stage.iou, targets.iou), chosen)
    if output.action_logits is not None:
        wanted = action_targets(truth, mask=mask)
        logits = _at_least_fp32(output.action_logits)
        costs = F.binary_cross_entropy_with_logits(
            logits, wanted.to(logits.dtype), reduction="none"
        )
        action = _mean_where(costs, mask)
    total = config.offset_weight * offsets + config.iou_weight * iou + config.action_weight * action
    return RefineLoss(total=total, offsets=offsets, iou=iou, action=action)


def offset_loss(stage: RefineStage, targets: StageTargets, *, proposal_mask: Tensor) -> Tensor:
    """Smooth-L1 of the four offsets, mean over the segments with IoU >= the stage's: scalar."""
    positive = (targets.iou >= stage.positive_iou) & proposal_mask
    return _mean_where(_smooth_l1(stage.offsets, targets.offsets).mean(dim=-1), positive)


def balanced_sample(
    iou: Tensor,
    proposal_mask: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    generator: torch.Generator,
) -> Tensor:
    """Choose as many segments of medium and of low IoU as there are of high IoU: bool [B, N].

    Over the whole batch: all with IoU > positive_iou, and of those in (negative_iou, positive_iou]
    and of those below each a random subset of the same number, at least one, or all if fewer.
    """
    priority = torch.rand(iou.shape, generator=generator, device=generator.device).to(iou.device)
    high = proposal_mask & (iou > positive_iou)
    low = proposal_mask & (iou <= negative_iou)
    medium = proposal_mask & ~high & ~low
    quota = high.sum().clamp(min=1)
    chosen = high
    for group in (medium, low):
        # Members first, in random order; ties of the fill value are no members.
        order = torch.where(group, priority, 2.0).flatten().argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        chosen = chosen | (group & (rank.view_as(group) < quota))
    return chosen


def _smooth_l1(prediction: Tensor, target: Tensor) -> Tensor:
    exact = _at_least_fp32(prediction)
    return F.smooth_l1_loss(exact, target.to(exact.dtype), reduction="none")


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of values where chosen; zero, with a gradient of zero, if nothing is."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)
