"""One training step of a BMN with 2304-d features: forward, loss, backward, AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from tests.benchmarks.dense_bmn import DenseBmn
from tests.benchmarks.measure import Comparison
from tfn_models.bmn.loss import bmn_loss
from tfn_models.bmn.model import BmnConfig, build_bmn
from tfn_models.bmn.targets import bmn_targets

CLIP_NORM = 1.0
Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def comparisons(*, small: bool, device: torch.device) -> list[Comparison]:
    """The whole step at T = D = 200 and 256, batch 1; on a GPU in bf16 too."""
    sizes = [BmnConfig(num_bins=bins) for bins in (200, 256)]
    if small:
        sizes = [BmnConfig(feature_dim=8, num_bins=12, base_channels=8, map_channels=(6, 10, 4))]
    precisions = PRECISIONS if device.type == "cuda" else PRECISIONS[:1]
    return [_comparison(size, precision, device) for precision in precisions for size in sizes]


def _comparison(config: BmnConfig, precision: Precision, device: torch.device) -> Comparison:
    # Both sides are made when they are first used: a dense mask of D = 256 takes 2 GiB.
    steps: dict[str, Callable[[], Tensor]] = {}

    def run(side: str) -> Tensor:
        if side not in steps:
            torch.manual_seed(0)
            ours = build_bmn(config)
            model = ours if side == "ours" else DenseBmn(config, ours)
            steps[side] = training_step(
                model.to(device), config, batch_size=1, device=device, precision=precision
            )
        return steps[side]()

    tolerance = 1e-4 if precision == "fp32" else 5e-2
    return Comparison(
        name=f"BMN training step, T=D={config.num_bins}, {config.feature_dim}-d, {precision}",
        ours=lambda: run("ours"),
        textbook=lambda: run("textbook"),
        check=lambda ours, textbook: torch.testing.assert_close(
            ours, textbook, rtol=tolerance, atol=tolerance
        ),
        goal=10.0,
        memory_goal=12.0,
        note="batch 1; dense mask, Conv3d, convolutions on all cells; the same loss",
    )


def training_step(
    model: nn.Module,
    config: BmnConfig,
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision = "fp32",
) -> Callable[[], Tensor]:
    """A step on one fixed batch; returns the loss and the norm of its gradient.

    The learning rate is 0: every step does the same.
    """
    generator = torch.Generator().manual_seed(1)
    shape = (batch_size, config.num_bins, config.feature_dim)
    features = torch.randn(shape, generator=generator).to(device)
    segments = torch.rand((batch_size, 4, 2), generator=generator).sort(dim=2).values
    targets = bmn_targets(list(segments), num_bins=config.num_bins).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step() -> Tensor:
        sampler = torch.Generator().manual_seed(2)
        bf16 = precision == "bf16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            maps = model(features)
        loss = bmn_loss(maps, targets, generator=sampler).total
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack([loss.detach(), norm])

    return step
