"""The sparse tables against the dense mask that BMN describes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tfn_models.bmn.dense_mask import dense_mask
from tfn_models.bmn import sampling
from tfn_models.bmn.sampling import GatherTable, WindowEnd, sampling_table


def as_matrix(table: GatherTable, *, num_inputs: int, denominator: int) -> Tensor:
    """[outputs, inputs] fp64."""
    counts = np.diff(table.offsets, append=len(table.indices))
    matrix = np.zeros((len(counts), num_inputs))
    outputs = np.repeat(np.arange(len(counts)), counts)
    matrix[outputs, table.indices] = table.numerators / denominator
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("window_end", ["last_bin", "next_bin"])
@pytest.mark.parametrize(("bins", "samples", "positions"), [(2, 2, 1), (9, 4, 3), (21, 8, 3)])
def test_table_is_the_dense_mask(
    bins: int, samples: int, positions: int, window_end: WindowEnd
) -> None:
    table = sampling_table(bins, samples, positions, window_end)
    mask = dense_mask(bins, samples, positions, extra_bins=int(window_end == "next_bin"))
    cells = [(d, t) for d in range(bins) for t in range(bins - d)]
    expected = torch.stack([mask[:, :, d, t].flatten() for d, t in cells])
    denominator = table.denominator
    matrix = as_matrix(table.forward, num_inputs=bins * samples, denominator=denominator)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-12)
    transposed = as_matrix(table.backward, num_inputs=len(cells), denominator=denominator)
    assert torch.equal(transposed, matrix.T)


def test_weights_are_whole_parts_of_the_denominator() -> None:
    """One position, half way between two bins: both get exactly half."""
    table = sampling_table(3, 2, 1)
    assert table.denominator == 2
    matrix = as_matrix(table.forward, num_inputs=6, denominator=2)
    # Bin 0 alone: positions -1/2 (all on bin 0, sample 0) and 1/2 (sample 1, bins 0 and 1).
    assert matrix[0].tolist() == [1, 0.5, 0, 0.5, 0, 0]


def test_a_table_built_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampling_table(16, 4, 3)
    monkeypatch.setattr(sampling, "_CHUNK", 100)
    pieces = sampling_table.__wrapped__(16, 4, 3)
    for one, other in ((whole.forward, pieces.forward), (whole.backward, pieces.backward)):
        assert np.array_equal(one.offsets, other.offsets)
        assert np.array_equal(one.indices, other.indices)
        assert np.array_equal(one.numerators, other.numerators)


def test_size_at_200_bins() -> None:
    table = sampling_table(200, 32, 3)
    assert len(table.forward.offsets) == 20_100
    assert len(table.forward.indices) / 20_100 == pytest.approx(122.5, abs=0.1)
    assert len(table.backward.indices) == len(table.forward.indices)


def test_refuses_an_unknown_window_end() -> None:
    with pytest.raises(ValueError, match="window_end must be 'last_bin' or 'next_bin', got 'bin'"):
        sampling_table(4, 2, 1, "bin")  # type: ignore[arg-type]
