"""The rows of Table 2, small, and videos that a Refine Network can learn something from."""

from dataclasses import dataclass, replace

import torch

from tfn_models.refine.loss import RefineLoss, refine_loss
from tfn_models.refine.model import RefineConfig, RefineNetwork, build_refine
from tfn_models.refine.output import RefineOutput

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
