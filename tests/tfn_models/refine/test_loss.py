import math

import pytest
import torch

from tfn_models.refine.loss import RefineLossConfig, balanced_sample, refine_loss
from tfn_models.refine.offsets import OffsetScales
from tfn_models.refine.output import RefineOutput, RefineStage
from tfn_models.refine.targets import action_targets, pad_ground_truth, stage_targets

SCALES = OffsetScales()


def make_output(
    *, num_videos: int = 2, num_proposals: int = 30, action: bool = True, seed: int = 0
) -> RefineOutput:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    stages = []
    for positive_iou in (0.5, 0.7):
        start = random(num_videos, num_proposals) * 6
        segments = torch.stack((start, start + 1 + random(num_videos, num_proposals) * 5), dim=-1)
        stages.append(
            RefineStage(
                input_segments=segments,
                segments=segments,
                iou=random(num_videos, num_proposals).requires_grad_(),
                offsets=(random(num_videos, num_proposals, 4) * 4 - 2).requires_grad_(),
                positive_iou=positive_iou,
            )
        )
    logits = (random(num_videos, 12) * 4 - 2).requires_grad_() if action else None
    return RefineOutput(tuple(stages), logits, SCALES)


def smooth_l1(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def test_against_a_loop() -> None:
    output = make_output()
    truth = [torch.tensor([[1.0, 5.0], [6.0, 9.0]]), torch.tensor([[2.0, 6.0]])]
    mask = torch.arange(12) < torch.tensor([12, 9])[:, None]
    proposal_mask = torch.arange(30) < torch.tensor([30, 20])[:, None]
    settings = RefineLossConfig(offset_weight=2.0, iou_weight=3.0, action_weight=5.0)
    loss = refine_loss(
        output,
        truth,
        mask=mask,
        proposal_mask=proposal_mask,
        generator=torch.Generator().manual_seed(4),
        config=settings,
    )
    generator = torch.Generator().manual_seed(4)
    offsets = iou = 0.0
    padded = pad_ground_truth(truth, like=output.stages[0].input_segments)
    for stage in output.stages:
        targets = stage_targets(stage.input_segments, padded, scales=SCALES)
        chosen = balanced_sample(
            targets.iou,
            proposal_mask,
            positive_iou=stage.positive_iou,
            negative_iou=0.3,
            generator=generator,
        )
        moves, judgements = [], []
        for video, index in proposal_mask.nonzero().tolist():
            overlap = targets.iou[video, index].item()
            if overlap >= stage.positive_iou:
                for which in range(4):
                    wanted = targets.offsets[video, index, which].item()
                    moves.append(smooth_l1(stage.offsets[video, index, which].item() - wanted))
            if chosen[video, index]:
                judgements.append(smooth_l1(stage.iou[video, index].item() - overlap))
        assert moves
        offsets += mean(moves)
        iou += mean(judgements)
    wanted_action = action_targets(padded, mask=mask)
    costs = []
    assert output.action_score is not None
    for video, clip in mask.nonzero().tolist():
        score, share = output.action_score[video, clip].item(), wanted_action[video, clip].item()
        costs.append(-share * math.log(score) - (1 - share) * math.log(1 - score))
    assert loss.offsets.item() == pytest.approx(offsets, rel=1e-5)
    assert loss.iou.item() == pytest.approx(iou, rel=1e-5)
    assert loss.action.item() == pytest.approx(mean(costs), rel=1e-5)
    assert loss.total.item() == pytest.approx(2 * offsets + 3 * iou + 5 * mean(costs), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_balanced_sample_counts(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    iou = torch.rand(3, 40, generator=generator) * torch.tensor([1.0, 0.9, 0.65])[:, None]
    proposal_mask = torch.rand(3, 40, generator=generator) < 0.8
    chosen = balanced_sample(
        iou, proposal_mask, positive_iou=0.6, negative_iou=0.3, generator=generator
    )
    high = proposal_mask & (iou > 0.6)
    medium = proposal_mask & (iou > 0.3) & (iou <= 0.6)
    low = proposal_mask & (iou <= 0.3)
    assert not (chosen & ~proposal_mask).any()
    assert torch.equal(chosen & high, high)
    for group in (medium, low):
        assert (chosen & group).sum() == min(int(group.sum()), max(1, int(high.sum())))


def test_balanced_sample_follows_the_seed_only_and_varies_with_it() -> None:
    iou = torch.linspace(0, 0.8, 200)[None]
    proposal_mask = torch.ones(1, 200, dtype=torch.bool)
    first, again, other = (
        balanced_sample(
            iou,
            proposal_mask,
            positive_iou=0.7,
            negative_iou=0.3,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("case", ["no ground truth", "nothing near", "no proposals"])
def test_without_positives_loss_and_gradients_are_finite(case: str) -> None:
    output = make_output()
    truth = [torch.zeros(0, 2)] * 2
    if case == "nothing near":
        truth = [torch.tensor([[50.0, 60.0]])] * 2
    proposal_mask = torch.full((2, 30), case != "no proposals")
    loss = refine_loss(
        output,
        truth,
        mask=torch.ones(2, 12, dtype=torch.bool),
        proposal_mask=proposal_mask,
        generator=torch.Generator().manual_seed(0),
    )
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert loss.offsets.item() == 0
    for stage in output.stages:
        assert stage.offsets.grad is not None
        assert (stage.offsets.grad == 0).all()
        assert stage.iou.grad is not None
        assert torch.isfinite(stage.iou.grad).all()


def test_each_stage_uses_its_own_iou_threshold() -> None:
    """A proposal of IoU 0.6 teaches the first stage (0.5) to move, not the second (0.7)."""
    segments = torch.tensor([[[0.0, 10.0]]])
    stages = tuple(
        RefineStage(
            input_segments=segments,
            segments=segments,
            iou=torch.zeros(1, 1),
            offsets=torch.zeros(1, 1, 4, requires_grad=True),
            positive_iou=positive_iou,
        )
        for positive_iou in (0.5, 0.7)
    )
    loss = refine_loss(
        RefineOutput(stages, None, SCALES),
        [torch.tensor([[0.0, 6.0]])],
        mask=torch.ones(1, 10, dtype=torch.bool),
        proposal_mask=torch.ones(1, 1, dtype=torch.bool),
        generator=torch.Generator().manual_seed(0),
    )
    loss.total.backward()
    first, second = (stage.offsets.grad for stage in stages)
    assert first is not None and first.abs().sum() > 0
    assert second is not None and second.abs().sum() == 0
    assert loss.action.item() == 0
