"""Fusion of BMNs: maps of several lengths on one grid."""

import pytest
import torch

from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, unpack_valid_cells, valid_cells
from tfn_models.fusion.boundary_maps import (
    MapWeights,
    fit_map_weights,
    fuse_boundary_maps,
    resize_boundary_maps,
    uniform_map_weights,
)


def random_maps(num_videos: int, num_bins: int, seed: int = 0) -> BoundaryMaps:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, num_videos, num_bins, generator=generator)
    cells = torch.rand(2, num_videos, num_bins, num_bins, generator=generator)
    cells = cells * valid_cells(num_bins)
    return BoundaryMaps(rows[0], rows[1], cells[0], cells[1])


def linear_maps(num_bins: int) -> BoundaryMaps:
    """Maps that are linear in what they stand for: the instant, the start, the duration."""
    bins = torch.arange(num_bins, dtype=torch.float64)
    start, duration = bins / num_bins, ((bins + 1) / num_bins).unsqueeze(1)
    valid = valid_cells(num_bins)
    return BoundaryMaps(
        start=start.unsqueeze(0),
        end=duration.T,
        classification=((2 * start - 3 * duration) * valid).unsqueeze(0),
        regression=((1 + start + duration) * valid).unsqueeze(0),
    )


def test_resizing_to_half_reads_the_same_windows() -> None:
    maps = random_maps(2, 12)
    half = resize_boundary_maps(maps, 6)
    for duration in range(6):
        assert torch.equal(half.start[:, duration], maps.start[:, 2 * duration])
        assert torch.equal(half.end[:, duration], maps.end[:, 2 * duration + 1])
        for start in range(6 - duration):
            torch.testing.assert_close(
                half.regression[:, duration, start],
                maps.regression[:, 2 * duration + 1, 2 * start],
            )


@pytest.mark.parametrize(("old_bins", "new_bins"), [(20, 12), (32, 25), (12, 7)])
def test_shrinking_is_exact_for_linear_rows(old_bins: int, new_bins: int) -> None:
    got, want = resize_boundary_maps(linear_maps(old_bins), new_bins), linear_maps(new_bins)
    torch.testing.assert_close(got.start, want.start)
    torch.testing.assert_close(got.end, want.end)


@pytest.mark.parametrize(("old_bins", "new_bins"), [(20, 12), (12, 20), (9, 9), (7, 16)])
def test_equals_loops(old_bins: int, new_bins: int) -> None:
    maps = random_maps(1, old_bins)
    resized = resize_boundary_maps(maps, new_bins)
    ratio = old_bins / new_bins
    for duration in range(new_bins):
        for start in range(new_bins):
            got = resized.regression[0, duration, start].item()
            if start + duration >= new_bins:
                assert got == 0
                continue
            row = min(max((duration + 1) * ratio - 1, 0), old_bins - 1)
            column = min(start * ratio, old_bins - 1)
            total, weight_sum = 0.0, 0.0
            for d in range(old_bins):
                for t in range(old_bins - d):
                    weight = max(0.0, 1 - abs(d - row)) * max(0.0, 1 - abs(t - column))
                    total += weight * maps.regression[0, d, t].item()
                    weight_sum += weight
            assert got == pytest.approx(total / weight_sum, abs=1e-5)


@pytest.mark.parametrize("value", [0.25, 1.0])
def test_constant_maps_stay_constant(value: float) -> None:
    cells = value * valid_cells(13).double().unsqueeze(0)
    row = torch.full((1, 13), value, dtype=torch.float64)
    resized = resize_boundary_maps(BoundaryMaps(row, row, cells, cells), 31)
    torch.testing.assert_close(resized.start, torch.full((1, 31), value).double())
    torch.testing.assert_close(resized.regression, value * valid_cells(31).double().unsqueeze(0))


def test_uniform_weights_are_exactly_the_mean() -> None:
    members = [random_maps(2, 8, seed) for seed in range(3)]
    fused = fuse_boundary_maps(members, uniform_map_weights(3), num_bins=8)
    for name in ("start", "end", "classification", "regression"):
        expected = torch.stack([getattr(m, name) for m in members]).mean(dim=0)
        assert torch.equal(getattr(fused, name), expected)


def test_members_of_several_lengths_are_summed() -> None:
    members = [random_maps(2, 8), random_maps(2, 12)]
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    fused = fuse_boundary_maps(members, MapWeights(one, other, one, other), num_bins=8)
    torch.testing.assert_close(fused.start, members[0].start)
    torch.testing.assert_close(fused.end, resize_boundary_maps(members[1], 8).end)


def good_and_bad_members() -> tuple[list[BoundaryMaps], BmnTargets]:
    generator = torch.Generator().manual_seed(0)
    packed = torch.rand(12, 36, generator=generator)
    iou = unpack_valid_cells(packed)
    rows = torch.rand(2, 12, 8, generator=generator)
    targets = BmnTargets(rows[0], rows[1], iou)
    good = BoundaryMaps(0.1 + 0.8 * rows[0], 0.1 + 0.8 * rows[1], 0.05 + 0.9 * iou, iou)
    return [random_maps(12, 8, 1), good, random_maps(12, 8, 2)], targets


def test_the_better_member_weighs_more() -> None:
    members, targets = good_and_bad_members()
    weights = fit_map_weights(members, targets)
    for one in (weights.start, weights.end, weights.classification, weights.regression):
        assert one.sum().item() == pytest.approx(1)
        assert one.argmax() == 1
    assert weights.regression[1] > 0.9


def test_a_seed_draws_videos_from_many() -> None:
    members, targets = good_and_bad_members()
    first, same, other = (
        fit_map_weights(members, targets, max_videos=5, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(first.start, same.start)
    assert not torch.equal(first.start, other.start)


def test_refuses_wrong_input() -> None:
    members, targets = good_and_bad_members()
    with pytest.raises(ValueError, match="at least one member"):
        fuse_boundary_maps([], uniform_map_weights(1), num_bins=4)
    with pytest.raises(ValueError, match=r"same videos, got numbers \[2, 3\]"):
        fuse_boundary_maps(
            [random_maps(2, 4), random_maps(3, 4)], uniform_map_weights(2), num_bins=4
        )
    with pytest.raises(ValueError, match="got 3 and 12"):
        fit_map_weights(members, targets.select(torch.arange(3)))
    with pytest.raises(ValueError, match="must all be"):
        MapWeights(torch.ones(2), torch.ones(2), torch.ones(3), torch.ones(2))
