"""Convolutions in strips against the convolution of the full map."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.bmn import map_convolution
from tfn_models.bmn.map_convolution import (
    MapConvolutions,
    convolve_map,
    outside_positions,
    strips,
    window_positions,
)
from tfn_models.boundary_maps import pack_valid_cells, unpack_valid_cells


def padded(cells: Tensor) -> Tensor:
    """[B, C, D, D] -> [B, D+2, D+2, C] with a border of zeros."""
    return F.pad(cells, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()


def diagonals(num_bins: int) -> Tensor:
    """The sum t + d of each cell: [D, D]."""
    return torch.arange(num_bins)[:, None] + torch.arange(num_bins)


@pytest.mark.parametrize("reach", [0, 2])
@pytest.mark.parametrize(("num_bins", "rows"), [(2, 16), (7, 3), (20, 4), (33, 16)])
def test_values_and_gradients_are_those_of_the_full_convolution(
    num_bins: int, rows: int, reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(map_convolution.STRIP_ROWS, "cpu", rows)
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, padding=1).double()
    needed = diagonals(num_bins) < num_bins + reach + 2
    x = torch.randn(2, 3, num_bins, num_bins, dtype=torch.float64) * needed
    x.requires_grad_()
    within = diagonals(num_bins) < num_bins + reach
    expected = convolution(x).relu() * within
    got = convolve_map(padded(x), convolution, reach=reach)
    inner = got[:, 1:-1, 1:-1].permute(0, 3, 1, 2) * within
    torch.testing.assert_close(inner, expected, rtol=0, atol=1e-12)
    assert (got[:, 0] == 0).all() and (got[:, :, -1] == 0).all()

    upstream = torch.randn_like(expected)
    inputs = [x, convolution.weight, convolution.bias]
    gradients = torch.autograd.grad(inner, inputs, upstream)
    for one, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("num_bins", "rows"), [(2, 1), (9, 4), (17, 16), (20, 64)])
def test_windows_alone(num_bins: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(map_convolution.STRIP_ROWS, "cpu", rows)
    torch.manual_seed(1)
    convolution = nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(2, 2, num_bins, num_bins, dtype=torch.float64, requires_grad=True)
    windows = window_positions(num_bins)
    got = convolve_map(padded(x), convolution, reach=0, windows=windows)
    expected = pack_valid_cells(convolution(x).relu()).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)

    upstream = torch.randn_like(expected)
    inputs = [x, convolution.weight, convolution.bias]
    gradients = torch.autograd.grad(got, inputs, upstream)
    for one, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reach", [0, 2, 4])
@pytest.mark.parametrize(("num_bins", "rows"), [(5, 2), (40, 16), (41, 7)])
def test_strips_cover_what_is_within_reach_and_little_more(
    num_bins: int, rows: int, reach: int
) -> None:
    covered = torch.zeros(num_bins, num_bins, dtype=torch.int64)
    for strip in strips(num_bins, reach=reach, rows=rows):
        covered[strip.first : strip.last, : strip.width] += 1
    assert covered.max() == 1
    within = diagonals(num_bins) < num_bins + reach
    assert (covered[within] == 1).all()
    assert (covered[~within] == 1).sum() <= num_bins * (rows - 1) / 2


def test_positions_are_those_of_the_padded_map() -> None:
    marks = torch.zeros(5 * 5)
    marks[window_positions(3)] = 1
    marks[outside_positions(3, reach=1)] = 2
    assert marks.view(5, 5)[1:-1, 1:-1].tolist() == [[1, 1, 1], [1, 1, 2], [1, 2, 0]]
    assert marks.sum() == 6 + 2 * 2


def test_refuses_other_convolutions_and_shapes() -> None:
    with pytest.raises(ValueError, match="3x3 with stride 1"):
        convolve_map(torch.zeros(1, 4, 4, 2), nn.Conv2d(2, 2, 1), reach=0)
    with pytest.raises(ValueError, match=r"must be \[B, D\+2, D\+2, C\], got \[1, 4, 5, 2\]"):
        convolve_map(torch.zeros(1, 4, 5, 2), nn.Conv2d(2, 2, 3), reach=0)


@pytest.mark.parametrize("num_bins", [2, 6, 19])
def test_both_convolutions_equal_those_of_the_full_map(num_bins: int) -> None:
    """Cells that are no windows hold a constant, which both convolutions read."""
    torch.manual_seed(2)
    module = MapConvolutions(3, num_bins=num_bins).double()
    windows = torch.randn(2, num_bins * (num_bins + 1) // 2, 3, dtype=torch.float64)
    outside = torch.randn(3, dtype=torch.float64)
    inputs = [windows.requires_grad_(), outside.requires_grad_(), *module.parameters()]
    valid = (diagonals(num_bins) < num_bins)[:, :, None]
    cells = torch.where(valid, unpack_valid_cells(windows.transpose(1, 2)).movedim(1, -1), outside)
    full = cells.movedim(-1, 1).relu()
    full = module.second(module.first(full).relu()).relu()
    expected = pack_valid_cells(full).transpose(1, 2)
    got = module(windows, outside)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)

    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(got, inputs, upstream)
    for one, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
