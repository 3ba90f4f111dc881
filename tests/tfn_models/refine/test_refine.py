"""The whole of it: stages matched anew at their own IoU, exact gradients, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.tfn_models.refine.toy_videos import (
    FULL,
    SMALL,
    TABLE_2,
    make_videos,
    randomize,
    run,
    train,
)
from tfn_models.refine.decode import decode_refined
from tfn_models.refine.loss import balanced_sample, refine_loss
from tfn_models.refine.model import RefineConfig, RefineNetwork, build_refine, fit_segments
from tfn_models.refine.targets import pad_ground_truth, stage_targets
from tfn_models.segments import pairwise_iou

Segment = list[float]
TINY = replace(
    FULL,
    feature_dim=3,
    base_channels=8,
    roi_channels=4,
    hidden_channels=5,
    start_bins=2,
    action_bins=2,
    end_bins=1,
    transformer_heads=2,
    transformer_local_heads=1,
    transformer_feedforward_channels=4,
    dropout=0.0,
)


def slow_iou(one: Segment, other: Segment) -> float:
    inside = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return inside / (one[1] - one[0] + other[1] - other[0] - inside)


def slow_match(segment: Segment, truth: list[Segment]) -> tuple[float, Segment]:
    """The IoU with the best of the actions, the first of equals; the segment itself if none."""
    best, matched = 0.0, segment
    for action in truth:
        if slow_iou(segment, action) > best:
            best, matched = slow_iou(segment, action), action
    return best, matched


def slow_offsets(segment: Segment, target: Segment) -> list[float]:
    width, target_width = segment[1] - segment[0], target[1] - target[0]
    return [
        (sum(target) - sum(segment)) / 2 / width / 0.1,
        math.log(target_width / width) / 0.2,
        (target[0] - segment[0]) / width / 0.1,
        (target[1] - segment[1]) / width / 0.1,
    ]


def slow_move(segment: Segment, offsets: list[float], length: int) -> Segment:
    """The mean of what centre and width, and what start and end say, inside the video."""
    width, centre = segment[1] - segment[0], sum(segment) / 2
    centre += 0.1 * offsets[0] * width
    half = width * math.exp(0.2 * offsets[1]) / 2
    start = (centre - half + segment[0] + 0.1 * offsets[2] * width) / 2
    end = (centre + half + segment[1] + 0.1 * offsets[3] * width) / 2
    start = min(max(start, 0.0), length - 0.1)
    return [start, min(max(end, start + 0.1), length)]


def smooth_l1(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("row", TABLE_2)
def test_each_stage_against_a_loop(row: str) -> None:
    """What a stage is given, where it moves it, what it is matched with, and its loss."""
    torch.manual_seed(0)
    model = randomize(build_refine(TABLE_2[row]))
    videos = make_videos(2, seed=3)
    videos.proposal_mask[1, 9:] = False
    output = run(model, videos)
    lengths = videos.mask.sum(1)
    given = fit_segments(videos.proposals, lengths=lengths)
    generator = torch.Generator().manual_seed(7)
    expected_offsets = expected_iou = 0.0
    for stage, threshold in zip(output.stages, (0.5, 0.6, 0.7), strict=True):
        torch.testing.assert_close(
            stage.input_segments[videos.proposal_mask], given[videos.proposal_mask]
        )
        truth = pad_ground_truth(videos.truth, like=stage.input_segments)
        targets = stage_targets(stage.input_segments, truth, scales=output.offset_scales)
        chosen = balanced_sample(
            targets.iou,
            videos.proposal_mask,
            positive_iou=threshold,
            negative_iou=0.3,
            generator=generator,
        )
        moves, judgements = [], []
        for video, index in videos.proposal_mask.nonzero().tolist():
            segment = stage.input_segments[video, index].tolist()
            overlap, matched = slow_match(segment, videos.truth[video].tolist())
            offsets = stage.offsets[video, index].tolist()
            if overlap >= threshold:
                wanted = slow_offsets(segment, matched)
                moves += [smooth_l1(a - b) for a, b in zip(offsets, wanted, strict=True)]
            if chosen[video, index]:
                judgements.append(smooth_l1(stage.iou[video, index].item() - overlap))
            moved = slow_move(segment, offsets, int(lengths[video]))
            assert stage.segments[video, index].tolist() == pytest.approx(moved, abs=1e-4)
        assert moves
        expected_offsets += mean(moves)
        expected_iou += mean(judgements)
        given = stage.segments
    loss = refine_loss(
        output,
        videos.truth,
        mask=videos.mask,
        proposal_mask=videos.proposal_mask,
        generator=torch.Generator().manual_seed(7),
    )
    assert loss.offsets.item() == pytest.approx(expected_offsets, rel=1e-4)
    assert loss.iou.item() == pytest.approx(expected_iou, rel=1e-4)


def always_move(model: RefineNetwork, offsets: list[float]) -> RefineNetwork:
    """Every stage moves every proposal by the same offsets, whatever it sees."""
    for stage in model.stages:
        for head in (stage.whole, stage.start, stage.end):
            torch.nn.init.zeros_(head[-1].weight)
        stage.whole[-1].bias.data = torch.tensor([0.0, *offsets[:2]])
        stage.start[-1].bias.data = torch.tensor(offsets[2:3])
        stage.end[-1].bias.data = torch.tensor(offsets[3:])
    return model.eval()


def test_a_proposal_that_walks_is_matched_with_another_action_by_hand() -> None:
    """[4, 14] walks by 6 clips a stage, from the action [4, 14] to the action [15, 25].

    IoU 1 with the first, then 5 / 15 and 9 / 11 with the second: the first and third stage learn
    to move it (thresholds 0.5 and 0.7), the second (0.6) does not.
    """
    model = always_move(build_refine(SMALL), [6.0, 0.0, 6.0, 6.0])
    truth = torch.tensor([[4.0, 14.0], [15.0, 25.0]])
    output = model(
        torch.randn(1, 40, 16),
        mask=torch.ones(1, 40, dtype=torch.bool),
        proposals=torch.tensor([[[4.0, 14.0]]]),
        proposal_mask=torch.ones(1, 1, dtype=torch.bool),
    )
    inputs = [stage.input_segments[0, 0].tolist() for stage in output.stages]
    for got, want in zip(inputs, [[4, 14], [10, 20], [16, 26]], strict=True):
        assert got == pytest.approx(want)
    targets = [
        stage_targets(
            stage.input_segments,
            pad_ground_truth([truth], like=stage.input_segments),
            scales=output.offset_scales,
        )
        for stage in output.stages
    ]
    assert [t.iou.item() for t in targets] == pytest.approx([1, 5 / 15, 9 / 11])
    # Start and end, tenths of a width: nothing; + 5 clips; - 1 clip.
    for target, want in zip(targets, [0.0, 5.0, -1.0], strict=True):
        assert target.offsets[0, 0].tolist() == pytest.approx([want, 0, want, want], abs=1e-5)
    positive = [
        (t.iou >= s.positive_iou).item() for t, s in zip(targets, output.stages, strict=True)
    ]
    assert positive == [True, False, True]


def exact_inputs() -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    fixed = {
        "mask": torch.arange(5) < torch.tensor([5, 3])[:, None],
        "proposals": torch.tensor([[[0.5, 3.0], [1.0, 4.5]], [[0.2, 2.0], [0.0, 0.0]]]).double(),
        "proposal_mask": torch.tensor([[True, True], [True, False]]),
    }
    return features.requires_grad_(), fixed


@pytest.mark.parametrize("which", ["features", "weights"])
def test_gradients_through_all_stages(which: str) -> None:
    """In all rows' modules at once.

    A stage's input carries no gradient (the paper's cascade is trained so), which a numerical
    gradient would not know: so the first two stages move proposals by fixed offsets here.
    """
    torch.manual_seed(0)
    model = randomize(build_refine(TINY)).double()
    last = {name: value.clone() for name, value in model.stages[2].state_dict().items()}
    iou_heads = [10 * stage.whole[-1].weight[0].detach().clone() for stage in model.stages]
    always_move(model, [0.5, 0.2, -0.3, 0.4]).double()
    for stage, weight in zip(model.stages, iou_heads, strict=True):
        stage.whole[-1].weight.data[0] = weight
    model.stages[2].load_state_dict(last)
    features, fixed = exact_inputs()

    def answers(features: Tensor) -> tuple[Tensor, ...]:
        output = model(features, **fixed)
        return (*(s.iou for s in output.stages), output.stages[2].offsets, output.action_logits)

    if which == "features":
        assert torch.autograd.gradcheck(answers, (features,))
        return
    for name, value in model.named_parameters():
        if "project" in name or "lstm.weight_ih_l0" in name or name.startswith("base.1.bias"):

            def answers_of(value: Tensor, name: str = name) -> tuple[Tensor, ...]:
                output = torch.func.functional_call(model, {name: value}, (features,), fixed)
                return tuple(stage.iou for stage in output.stages)

            weight = value.detach().clone().requires_grad_()
            assert torch.autograd.gradcheck(answers_of, (weight,), fast_mode=True), name


def test_gradients_of_the_loss() -> None:
    torch.manual_seed(0)
    model = always_move(randomize(build_refine(TINY)), [0.5, 0.2, -0.3, 0.4]).double()
    features, fixed = exact_inputs()
    output = model(features, **fixed)
    truth = [torch.tensor([[0.4, 3.1]]).double(), torch.tensor([[0.5, 2.5]]).double()]

    def loss(*answers: Tensor) -> Tensor:
        stages = [
            replace(stage, iou=iou, offsets=offsets)
            for stage, iou, offsets in zip(output.stages, answers[:3], answers[3:6], strict=True)
        ]
        return refine_loss(
            replace(output, stages=tuple(stages), action_logits=answers[6]),
            truth,
            mask=fixed["mask"],
            proposal_mask=fixed["proposal_mask"],
            generator=torch.Generator().manual_seed(0),
        ).total

    answers = [stage.iou.detach() for stage in output.stages]
    answers += [stage.offsets.detach() + 0.3 for stage in output.stages]
    answers.append(output.action_logits.detach())
    assert loss(*answers).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, tuple(answer.requires_grad_() for answer in answers))


def mean_best_iou(segments: torch.Tensor, truth: list[torch.Tensor]) -> float:
    best = [pairwise_iou(s, t).amax(dim=1) for s, t in zip(segments, truth, strict=True)]
    return torch.stack(best).mean().item()


@pytest.mark.parametrize("config", [SMALL, FULL], ids=["base", "full"])
def test_learns_a_toy_problem(config: RefineConfig) -> None:
    """Trained on eight videos, it improves the proposals of eight others and ranks them."""
    model, losses = train(config, make_videos(8, seed=1), steps=40)
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    videos = make_videos(8, seed=2)
    with torch.no_grad():
        output = run(model, videos)
    refined = decode_refined(
        output,
        proposal_scores=torch.ones(videos.proposal_mask.shape),
        proposal_mask=videos.proposal_mask,
    )
    before = mean_best_iou(videos.proposals, videos.truth)
    assert mean_best_iou(refined.segments, videos.truth) > before + 0.1
    # The IoU that the last head predicts goes with that of what it was given.
    judged = output.stages[-1]
    true_iou = torch.stack(
        [
            pairwise_iou(s, t).amax(dim=1)
            for s, t in zip(judged.input_segments, videos.truth, strict=True)
        ]
    )
    both = torch.stack([judged.iou.flatten(), true_iou.flatten()])
    ranks = both.argsort(dim=1).argsort(dim=1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.3


def test_training_repeats_bitwise() -> None:
    videos = make_videos(2, seed=1)
    first, losses = train(FULL, videos, steps=2)
    second, again = train(FULL, videos, steps=2)
    assert losses == again
    for ours, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, other)
