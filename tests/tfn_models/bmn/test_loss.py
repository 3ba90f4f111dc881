"""The loss against loops over cells, its balance, and batches that have nothing to learn from."""

import math

import pytest
import torch
from torch import Tensor

from tfn_models.bmn.loss import balanced_windows, bmn_loss
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, pack_valid_cells, valid_cells


def random_maps(num_videos: int, num_bins: int) -> BoundaryMaps:
    generator = torch.Generator().manual_seed(2)
    rows = torch.rand(2, num_videos, num_bins, generator=generator)
    cells = torch.rand(2, num_videos, num_bins, num_bins, generator=generator)
    cells = (cells * valid_cells(num_bins)).requires_grad_()
    return BoundaryMaps(rows[0].requires_grad_(), rows[1].requires_grad_(), cells[0], cells[1])


def loop_logistic(pairs: list[tuple[float, bool]]) -> float:
    positives = [math.log(p + 1e-6) for p, is_positive in pairs if is_positive]
    negatives = [math.log(1 - p + 1e-6) for p, is_positive in pairs if not is_positive]
    means = [sum(logs) / len(logs) for logs in (positives, negatives) if logs]
    return -sum(means) / 2


def cells_of(cells: Tensor) -> list[float]:
    batch, num_bins = cells.shape[:2]
    return [
        cells[b, d, t].item()
        for b in range(batch)
        for d in range(num_bins)
        for t in range(num_bins - d)
    ]


def test_equals_loops() -> None:
    segments = [torch.tensor([[0.13, 0.52], [0.6, 0.98]]), torch.tensor([[0.3, 0.4]])]
    targets, maps = bmn_targets(segments, num_bins=12), random_maps(2, 12)
    loss = bmn_loss(maps, targets, generator=torch.Generator().manual_seed(7))

    boundary = 0.0
    for probabilities, wanted in ((maps.start, targets.start), (maps.end, targets.end)):
        pairs = zip(probabilities.flatten().tolist(), wanted.flatten().tolist(), strict=True)
        boundary += loop_logistic([(p, want > 0.5) for p, want in pairs])
    assert loss.boundary.item() == pytest.approx(boundary, rel=1e-5)

    ious = cells_of(targets.iou)
    pairs = zip(cells_of(maps.classification), ious, strict=True)
    classification = loop_logistic([(p, iou > 0.9) for p, iou in pairs])
    assert loss.classification.item() == pytest.approx(classification, rel=1e-5)

    chosen = balanced_windows(
        pack_valid_cells(targets.iou), generator=torch.Generator().manual_seed(7)
    )
    errors = [
        (p - iou) ** 2
        for p, iou, take in zip(
            cells_of(maps.regression), ious, chosen.flatten().tolist(), strict=True
        )
        if take
    ]
    assert loss.regression.item() == pytest.approx(0.5 * sum(errors) / len(errors), rel=1e-5)
    total = boundary + 10 * loss.regression.item() + classification
    assert loss.total.item() == pytest.approx(total, rel=1e-5)


def test_classes_of_iou_are_balanced() -> None:
    iou = torch.cat([torch.full((4000,), 0.1), torch.full((2000,), 0.5), torch.full((500,), 0.8)])
    chosen = balanced_windows(iou.unsqueeze(0), generator=torch.Generator().manual_seed(0))[0]
    assert chosen[6000:].all()
    assert 400 < chosen[:4000].sum() < 600
    assert 400 < chosen[4000:6000].sum() < 600


def test_the_seed_decides_the_sample() -> None:
    iou = torch.rand(2, 500, generator=torch.Generator().manual_seed(0))
    first, same, other = (
        balanced_windows(iou, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("iou", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_batches_of_one_kind_are_finite(iou: float) -> None:
    """Peers divide by the number of positives: a batch without any gave infinity or NaN."""
    maps = random_maps(2, 6)
    boundary = torch.full((2, 6), iou)
    targets = BmnTargets(boundary, boundary, iou * valid_cells(6).expand(2, 6, 6))
    loss = bmn_loss(maps, targets, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(loss.total, [maps.start, maps.classification])
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(g).all() for g in gradients)


def test_an_empty_batch_is_finite() -> None:
    maps, rows = random_maps(0, 6), torch.zeros(0, 6)
    loss = bmn_loss(maps, BmnTargets(rows, rows, torch.zeros(0, 6, 6)), generator=torch.Generator())
    assert loss.total.item() == 0


def test_cells_that_are_no_windows_do_not_count() -> None:
    targets, maps = bmn_targets([torch.tensor([[0.2, 0.8]])], num_bins=6), random_maps(1, 6)
    noise = torch.rand(1, 6, 6) * ~valid_cells(6)
    noisy = BoundaryMaps(maps.start, maps.end, maps.classification + noise, maps.regression + noise)
    losses = [
        bmn_loss(m, targets, generator=torch.Generator().manual_seed(0)).total
        for m in (maps, noisy)
    ]
    assert losses[0] == losses[1]


def test_refuses_targets_of_another_size() -> None:
    targets = bmn_targets([torch.tensor([[0.2, 0.8]])], num_bins=7)
    with pytest.raises(ValueError, match=r"got \(1, 6\) and \(1, 7\)"):
        bmn_loss(random_maps(1, 6), targets, generator=torch.Generator())
