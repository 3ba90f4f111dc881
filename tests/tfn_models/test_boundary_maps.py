"""Shapes, the window convention, and packing."""

import pytest
import torch

from tfn_models.boundary_maps import (
    BmnTargets,
    BoundaryMaps,
    pack_valid_cells,
    unpack_valid_cells,
    valid_cells,
    valid_windows,
)


def test_packed_order_is_by_duration_then_start() -> None:
    cell_map = torch.arange(9.0).reshape(3, 3)
    assert pack_valid_cells(cell_map).tolist() == [0, 1, 2, 3, 4, 6]
    windows = (valid_windows(3) * 3).tolist()
    assert windows == [[0, 1], [1, 2], [2, 3], [0, 2], [1, 3], [0, 3]]


@pytest.mark.parametrize("num_bins", [1, 2, 5, 32])
@pytest.mark.parametrize("batch", [(), (3,), (2, 4)])
def test_unpack_undoes_pack(num_bins: int, batch: tuple[int, ...]) -> None:
    cell_map = torch.rand(*batch, num_bins, num_bins)
    packed = pack_valid_cells(cell_map)
    assert packed.shape == (*batch, num_bins * (num_bins + 1) // 2)
    assert torch.equal(unpack_valid_cells(packed), cell_map * valid_cells(num_bins))


def test_valid_cells_by_loop() -> None:
    valid = valid_cells(6)
    for duration in range(6):
        for start in range(6):
            assert bool(valid[duration, start]) == (start + duration < 6)


@pytest.mark.parametrize("num_cells", [0, 2, 4, 5, 7])
def test_unpack_refuses_other_sizes(num_cells: int) -> None:
    with pytest.raises(ValueError, match=f"got {num_cells} of them"):
        unpack_valid_cells(torch.zeros(num_cells))


def test_shapes_are_checked() -> None:
    row, square = torch.zeros(2, 4), torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match=r"start and end .* \(2, 4\) and \(2, 3\)"):
        BoundaryMaps(row, torch.zeros(2, 3), square, square)
    with pytest.raises(ValueError, match=r"regression must be .* got shape \(2, 4, 3\)"):
        BoundaryMaps(row, row, square, torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match="iou must be"):
        BmnTargets(row, row, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"\[\.\.\., D, D\], got shape \(2, 4\)"):
        pack_valid_cells(row)


def test_select_keeps_the_batch_dimension() -> None:
    maps = BoundaryMaps(
        torch.rand(3, 4), torch.rand(3, 4), torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    )
    chosen = maps.select(torch.tensor([2, 0]))
    assert torch.equal(chosen.start, maps.start[[2, 0]])
    assert torch.equal(chosen.regression, maps.regression[[2, 0]])
    assert chosen.num_bins == 4
