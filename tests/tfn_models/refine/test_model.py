from dataclasses import dataclass, replace

import pytest
import torch

from tfn_models.refine.decode import decode_refined
from tfn_models.refine.loss import RefineLoss, refine_loss
from tfn_models.refine.model import (
    RefineConfig,
    RefineModule,
    RefineNetwork,
    build_refine,
    fit_segments,
)
from tfn_models.refine.output import RefineOutput
from tfn_models.segments import pairwise_iou

SMALL = RefineConfig(
    feature_dim=16,
    base_channels=64,
    roi_channels=64,
    hidden_channels=64,
    start_bins=4,
    action_bins=8,
    end_bins=4,
    transformer_feedforward_channels=64,
)
LSTM = replace(SMALL, use_lstm=True)
NONLOCAL = replace(LSTM, use_nonlocal=True)
ACTION_SCORE = replace(NONLOCAL, use_action_score=True)
FULL = replace(ACTION_SCORE, use_transformer=True)
TABLE_2 = {"base": SMALL, "+1": LSTM, "+2": NONLOCAL, "+3": ACTION_SCORE, "+4": FULL}


@dataclass(frozen=True)
class Videos:
    """Videos whose features carry one direction more where an action is, and noisy proposals."""

    features: torch.Tensor
    mask: torch.Tensor
    truth: list[torch.Tensor]
    proposals: torch.Tensor
    proposal_mask: torch.Tensor


def make_videos(count: int, *, seed: int, num_clips: int = 40, num_proposals: int = 16) -> Videos:
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(99))
    features = torch.randn(count, num_clips, 16, generator=generator) * 0.5
    lengths = torch.randint(num_clips - 10, num_clips + 1, (count,), generator=generator)
    clips = torch.arange(num_clips)[:, None]
    truth, proposals = [], []
    for video in range(count):
        start = torch.tensor([2.0, 16.0]) + torch.rand(2, generator=generator) * 5
        end = start + 3 + torch.rand(2, generator=generator) * 5
        covered = (end.minimum(clips + 1) - start.maximum(clips)).clamp(min=0).sum(1)
        features[video] += covered[:, None] * direction
        truth.append(torch.stack((start, end), dim=-1))
        near = truth[-1][torch.arange(num_proposals) % 2]
        noise = torch.randn(num_proposals, 2, generator=generator) * 0.25
        proposals.append((near + noise * (near[:, 1:] - near[:, :1])).sort(dim=1).values)
    return Videos(
        features=features,
        mask=torch.arange(num_clips) < lengths[:, None],
        truth=truth,
        proposals=torch.stack(proposals),
        proposal_mask=torch.ones(count, num_proposals, dtype=torch.bool),
    )


def run(model: RefineNetwork, videos: Videos) -> RefineOutput:
    output: RefineOutput = model(
        videos.features,
        mask=videos.mask,
        proposals=videos.proposals,
        proposal_mask=videos.proposal_mask,
    )
    return output


def loss_of(model: RefineNetwork, videos: Videos, generator: torch.Generator) -> RefineLoss:
    return refine_loss(
        run(model, videos),
        videos.truth,
        mask=videos.mask,
        proposal_mask=videos.proposal_mask,
        generator=generator,
    )


def train(config: RefineConfig, videos: Videos, *, steps: int) -> tuple[RefineNetwork, list[float]]:
    torch.manual_seed(0)
    model = build_refine(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        loss = loss_of(model, videos, generator)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    return model.eval(), losses


def randomize(model: RefineNetwork) -> RefineNetwork:
    """Weights that make every part speak, also those that start at zero."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data += torch.randn(weight.shape, generator=generator) * 0.05
    return model.eval()


def mean_best_iou(segments: torch.Tensor, truth: list[torch.Tensor]) -> float:
    best = [pairwise_iou(s, t).amax(dim=1) for s, t in zip(segments, truth, strict=True)]
    return torch.stack(best).mean().item()


@pytest.mark.parametrize("row", TABLE_2)
def test_every_row_of_table_2_gets_gradients_everywhere(row: str) -> None:
    config = TABLE_2[row]
    model = randomize(build_refine(config)).train()
    videos = make_videos(2, seed=0)
    loss_of(model, videos, torch.Generator().manual_seed(0)).total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        # The key's bias moves all similarities of a query alike, so the softmax ignores it.
        assert weight.grad.abs().sum() > 0 or name.endswith("nonlocal_block.key.bias"), name
    output = run(model, videos)
    assert (output.action_score is not None) == config.use_action_score
    assert [stage.positive_iou for stage in output.stages] == [0.5, 0.6, 0.7]


def test_each_switch_adds_its_module_only() -> None:
    names = [set(build_refine(config).state_dict()) for config in TABLE_2.values()]
    parts = ["lstm", "nonlocal_block", "action_score", "transformer"]
    for before, after, part in zip(names, names[1:], parts, strict=False):
        assert before < after
        assert all(part in name for name in after - before)


def test_a_new_network_leaves_proposals_where_they_are() -> None:
    torch.manual_seed(0)
    videos = make_videos(2, seed=0)
    output = run(build_refine(FULL).eval(), videos)
    lengths = videos.mask.sum(1)
    expected = fit_segments(videos.proposals, lengths=lengths)
    torch.testing.assert_close(output.stages[-1].segments, expected)


@pytest.mark.parametrize("row", TABLE_2)
def test_alone_or_beside_other_videos_gives_the_same(row: str) -> None:
    torch.manual_seed(0)
    model = randomize(build_refine(TABLE_2[row]))
    videos = make_videos(3, seed=1)
    length, count = 17, 5
    mask, proposal_mask = videos.mask.clone(), videos.proposal_mask.clone()
    mask[1, length:] = False
    proposal_mask[1, count:] = False
    features, proposals = videos.features.clone(), videos.proposals.clone()
    features[1, length:] = torch.nan
    proposals[1, count:] = torch.nan
    together = model(features, mask=mask, proposals=proposals, proposal_mask=proposal_mask)
    alone = model(
        features[1:2, :length],
        mask=mask[1:2, :length],
        proposals=proposals[1:2, :count],
        proposal_mask=proposal_mask[1:2, :count],
    )
    for ours, reference in zip(together.stages, alone.stages, strict=True):
        torch.testing.assert_close(ours.iou[1:2, :count], reference.iou, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            ours.segments[1:2, :count], reference.segments, rtol=1e-4, atol=1e-4
        )
        assert torch.isfinite(ours.iou).all()
    if together.action_logits is not None:
        torch.testing.assert_close(
            together.action_logits[1:2, :length], alone.action_logits, rtol=1e-4, atol=1e-4
        )


def test_stages_chain_and_segments_stay_inside_the_video() -> None:
    torch.manual_seed(0)
    model = randomize(build_refine(FULL))
    videos = make_videos(3, seed=2)
    output = run(model, videos)
    for before, after in zip(output.stages, output.stages[1:], strict=False):
        assert torch.equal(before.segments, after.input_segments)
        assert not torch.equal(before.segments, after.segments)
    for stage in output.stages:
        assert not stage.segments.requires_grad
        assert (stage.segments >= 0).all()
        assert (stage.segments <= videos.mask.sum(1)[:, None, None]).all()
        assert (stage.segments[..., 1] > stage.segments[..., 0]).all()


def test_the_base_network_runs_once_a_video() -> None:
    model = build_refine(FULL)
    calls = []
    for convolution in model.base:
        convolution.register_forward_hook(lambda *_: calls.append("convolution"))
    assert model.transformer is not None
    model.transformer.register_forward_hook(lambda *_: calls.append("transformer"))
    run(model, make_videos(2, seed=0, num_proposals=200))
    assert calls == ["convolution", "convolution", "transformer"]


def test_bins_of_a_stage_are_context_proposal_context() -> None:
    """Features that tell their position read back the centre of each bin."""
    config = replace(SMALL, start_bins=1, action_bins=2, end_bins=3, context_ratio=0.75)
    positions = (torch.arange(30.0) + 0.5)[None, :, None]
    bins = RefineModule(config)._sample(
        positions, torch.tensor([[[10.0, 14.0]]]), lengths=torch.tensor([30])
    )
    expected = [8.5, 11.0, 13.0, 14.5, 15.5, 16.5]
    torch.testing.assert_close(bins.flatten(), torch.tensor(expected))


def test_fit_segments_by_hand() -> None:
    segments = torch.tensor([[[-3.0, 2.0], [8.0, 20.0], [4.0, 4.0], [30.0, 40.0], [6.0, 5.0]]])
    fitted = fit_segments(segments, lengths=torch.tensor([10]))
    expected = [[0.0, 2.0], [8.0, 10.0], [4.0, 4.1], [9.9, 10.0], [6.0, 6.1]]
    torch.testing.assert_close(fitted[0], torch.tensor(expected))


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


def test_training_repeats_bitwise() -> None:
    videos = make_videos(2, seed=1)
    first, losses = train(FULL, videos, steps=2)
    second, again = train(FULL, videos, steps=2)
    assert losses == again
    for ours, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize(
    "change",
    [
        {"base_channels": 0},
        {"action_bins": 0},
        {"context_ratio": 0.0},
        {"stage_ious": ()},
        {"stage_ious": (0.5, 1.5)},
    ],
)
def test_refuses_config(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SMALL, **change)


@pytest.mark.parametrize("case", ["proposals", "proposal_mask", "clip"])
def test_refuses_inputs(case: str) -> None:
    videos = make_videos(2, seed=0)
    wrong = {
        "proposals": replace(videos, proposals=videos.proposals[:1]),
        "proposal_mask": replace(videos, proposal_mask=videos.proposal_mask[:, 1:]),
        "clip": replace(videos, mask=torch.zeros_like(videos.mask)),
    }
    with pytest.raises(ValueError, match=case):
        run(build_refine(SMALL), wrong[case])
