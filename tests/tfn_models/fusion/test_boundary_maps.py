"""Fusion of BMNs: maps of several lengths on one grid."""

import pytest
import torch

from tfn_models.bmn.decode import decode_proposals
from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, unpack_valid_cells, valid_cells
from tfn_models.fusion.boundary_maps import (
    MapFusion,
    MapWeights,
    _balanced_squared_error,
    fit_map_fusion,
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


NAMES = ("start", "end", "classification", "regression")


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_a_new_fusion_is_the_mean_and_a_fitted_one_uses_its_weights(parametrisation: str) -> None:
    members, targets = good_and_bad_members()
    new = MapFusion(3, num_bins=8, parametrisation=parametrisation)  # type: ignore[arg-type]
    mean = new(members)
    fitted = fit_map_fusion(members, targets, parametrisation=parametrisation)  # type: ignore[arg-type]
    weights = fit_map_weights(members, targets, parametrisation=parametrisation)  # type: ignore[arg-type]
    fused, expected = fitted(members), fuse_boundary_maps(members, weights, num_bins=8)
    for name in NAMES:
        stacked = torch.stack([getattr(maps, name) for maps in members])
        assert torch.equal(getattr(mean, name), stacked.mean(dim=0))
        assert torch.equal(getattr(fitted.weights, name), getattr(weights, name))
        assert torch.equal(getattr(fused, name), getattr(expected, name))


def test_each_map_has_its_own_weights() -> None:
    members = [random_maps(2, 8), random_maps(2, 8, 1)]
    fusion = MapFusion(2, num_bins=8, parametrisation="free")
    shares = {"start": 1.0, "end": 0.0, "classification": 0.25, "regression": 0.5}
    fusion.load_state_dict(
        {f"{name}.numbers": torch.tensor([share, 1 - share]) for name, share in shares.items()}
    )
    fused = fusion(members)
    for name, share in shares.items():
        assert getattr(fusion.weights, name).tolist() == [share, 1 - share]
        first, second = (getattr(maps, name) for maps in members)
        torch.testing.assert_close(getattr(fused, name), share * first + (1 - share) * second)


def test_members_of_several_lengths_can_be_fitted_with_free_weights() -> None:
    members, targets = good_and_bad_members()
    members[0] = random_maps(12, 11, 1)
    fusion = fit_map_fusion(members, targets, parametrisation="free")
    for name in NAMES:
        assert bool(getattr(fusion.weights, name).isfinite().all())
        assert getattr(fusion.weights, name).argmax() == 1


def test_free_weights_find_what_no_simplex_can() -> None:
    """The good member stands out against a bad one that is taken away, and is scaled up."""
    generator = torch.Generator().manual_seed(0)
    iou = unpack_valid_cells(torch.rand(12, 36, generator=generator))
    rows = torch.rand(2, 12, 8, generator=generator)
    bias = random_maps(12, 8, 1)
    valid = valid_cells(8)
    good = BoundaryMaps(rows[0] / 2, rows[1] / 2, iou / 2, (iou + bias.regression) / 2 * valid)
    targets = BmnTargets(rows[0], rows[1], iou)
    free = fit_map_fusion([good, bias], targets, parametrisation="free", penalty=1e-4)
    simplex = fit_map_fusion([good, bias], targets, penalty=1e-4)
    torch.testing.assert_close(
        free.weights.regression.detach(), torch.tensor([2.0, -1.0]).double(), rtol=0, atol=0.05
    )
    fused = [fusion([good, bias]).regression.detach() for fusion in (free, simplex)]
    errors = [float((regression - iou).square().mean()) for regression in fused]
    assert errors[0] < 0.1 * errors[1]


def test_sums_by_free_weights_stay_probabilities_and_can_be_decoded() -> None:
    members = [random_maps(1, 8, seed) for seed in range(2)]
    weights = torch.tensor([6.0, -5.0]).double()
    fused = fuse_boundary_maps(members, MapWeights(*[weights] * 4), num_bins=8)
    for name in NAMES:
        values = getattr(fused, name)
        assert float(values.min()) == 0
        assert float(values.max()) == 1
        first, second = (getattr(maps, name) for maps in members)
        torch.testing.assert_close(values, (6 * first - 5 * second).clamp(0, 1))
    for scoring in ("detection", "recall"):
        decoded = decode_proposals(
            fused,
            scoring=scoring,  # type: ignore[arg-type]
            candidates="all",
            extent_seconds=8.0,
            video_seconds=8.0,
        )
        assert bool(decoded.scores.isfinite().all())
        assert bool((decoded.scores >= 0).all())


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_gradients(parametrisation: str) -> None:
    members = [linear_maps(4), linear_maps(5)]
    members = [
        BoundaryMaps(*(0.3 + 0.1 * getattr(maps, name) for name in NAMES)) for maps in members
    ]
    fusion = MapFusion(2, num_bins=4, parametrisation=parametrisation)  # type: ignore[arg-type]
    numbers = [
        torch.tensor(pair, dtype=torch.float64, requires_grad=True)
        for pair in ([0.3, 0.6], [0.5, 0.2], [0.8, 0.1], [0.2, 0.7])
    ]

    def fused(*numbers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = {f"{name}.numbers": value for name, value in zip(NAMES, numbers, strict=True)}
        maps = torch.func.functional_call(fusion, weights, (members,))
        return tuple(getattr(maps, name) for name in NAMES)

    assert torch.autograd.gradcheck(fused, tuple(numbers))


def test_the_criterion_of_regression_against_a_loop_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, iou = torch.rand(2, 40, dtype=torch.float64, generator=generator)
    classes: dict[str, list[float]] = {"low": [], "middle": [], "high": []}
    for p, true in zip(predicted.tolist(), iou.tolist(), strict=True):
        name = "low" if true <= 0.3 else "high" if true > 0.7 else "middle"
        classes[name].append((p - true) ** 2)
    expected = sum(sum(errors) / len(errors) for errors in classes.values()) / 3
    assert _balanced_squared_error(predicted, iou).item() == pytest.approx(expected)
    predicted.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: _balanced_squared_error(p, iou), (predicted,))


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
