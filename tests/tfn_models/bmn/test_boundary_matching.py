"""The sparse layer against the dense mask that BMN describes, built by loops."""

import pytest
import torch
from torch import Tensor

from tests.tfn_models.bmn.dense_mask import dense_mask
from tfn_models.bmn.boundary_matching import CPU_BLOCK, BoundaryMatching


def dense_layer(x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """[B, C, D] -> [B, O, D, D], samples first as the peers do."""
    sampled = torch.einsum("bct,tnds->bcnds", x, mask)
    return torch.einsum("bcnds,cno->bods", sampled, weight) + bias[:, None, None]


@pytest.mark.parametrize(
    ("num_bins", "num_samples", "positions_per_sample"),
    [(2, 2, 1), (5, 4, 3), (12, 8, 3), (17, 5, 2), (32, 8, 3)],
)
def test_outputs_and_gradients_equal_the_dense_mask(
    num_bins: int, num_samples: int, positions_per_sample: int
) -> None:
    torch.manual_seed(0)
    layer = BoundaryMatching(
        3,
        4,
        num_bins=num_bins,
        num_samples=num_samples,
        positions_per_sample=positions_per_sample,
    ).double()
    x = torch.randn(2, 3, num_bins, dtype=torch.float64, requires_grad=True)
    mask = dense_mask(num_bins, num_samples, positions_per_sample)
    dense = dense_layer(x, layer.weight, layer.bias, mask)
    cells = [(d, t) for d in range(num_bins) for t in range(num_bins - d)]
    expected = torch.stack([dense[:, :, d, t] for d, t in cells], dim=1)
    windows = layer(x)
    torch.testing.assert_close(windows, expected, rtol=0, atol=1e-10)

    upstream = torch.randn_like(expected)
    inputs = [x, layer.weight, layer.bias]
    gradients = torch.autograd.grad(windows, inputs, upstream)
    for got, want in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_gradcheck() -> None:
    layer = BoundaryMatching(2, 3, num_bins=5, num_samples=3).double()
    x = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_worked_by_hand() -> None:
    """Window of bin 0 alone, two samples of one position: at -1/2 and 1/2."""
    layer = BoundaryMatching(1, 1, num_bins=3, num_samples=2, positions_per_sample=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 10.0]).reshape(1, 2, 1))
        layer.bias.fill_(100.0)
    first = layer(torch.tensor([[[1.0, 3.0, 5.0]]]))[0, 0, 0]
    # -1/2 counts fully at bin 0: 1. 1/2 is half way between 1 and 3: 2.
    assert first.item() == 100 + 1 + 10 * 2


def test_same_seed_gives_the_same_bits_and_state_holds_parameters_only() -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        layer = BoundaryMatching(4, 6, num_bins=16, num_samples=8)
        x = torch.randn(2, 4, 16, requires_grad=True)
        layer(x).square().sum().backward()
        results.append((x.grad, layer.weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_half_precision_is_gathered_in_fp32() -> None:
    layer = BoundaryMatching(4, 6, num_bins=8, num_samples=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        windows = layer(torch.randn(1, 4, 8))
    assert windows.dtype == torch.float32


def test_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="num_bins must be at least 2, got 1"):
        BoundaryMatching(1, 1, num_bins=1)
    with pytest.raises(ValueError, match="positions_per_sample must be at least 1, got 0"):
        BoundaryMatching(1, 1, num_bins=4, positions_per_sample=0)
    layer = BoundaryMatching(2, 3, num_bins=5)
    with pytest.raises(ValueError, match=r"\[B, C, 5\], got shape \(1, 2, 6\)"):
        layer(torch.zeros(1, 2, 6))


@pytest.mark.parametrize("out_channels", [CPU_BLOCK - 1, CPU_BLOCK, 2 * CPU_BLOCK + 3])
def test_blocks_of_channels_make_up_the_whole(out_channels: int) -> None:
    torch.manual_seed(0)
    layer = BoundaryMatching(2, out_channels, num_bins=5, num_samples=3).double()
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    sizes = layer.channel_blocks(x.device)
    assert sum(sizes) == out_channels
    assert [block.shape[2] for block in layer.blocks(x)] == sizes
    expected = dense_layer(x, layer.weight, layer.bias, dense_mask(5, 3, 3))
    cells = [(d, t) for d in range(5) for t in range(5 - d)]
    whole = torch.stack([expected[:, :, d, t] for d, t in cells], dim=1)
    torch.testing.assert_close(layer(x), whole, rtol=0, atol=1e-10)


def test_windows_that_end_with_the_next_bin() -> None:
    """JJBOY's convention is that of windows longer by one bin at their end."""
    torch.manual_seed(0)
    layer = BoundaryMatching(2, 3, num_bins=7, num_samples=4, window_end="next_bin").double()
    x = torch.randn(2, 2, 7, dtype=torch.float64)
    expected = dense_layer(x, layer.weight, layer.bias, dense_mask(7, 4, 3, extra_bins=1))
    cells = [(d, t) for d in range(7) for t in range(7 - d)]
    whole = torch.stack([expected[:, :, d, t] for d, t in cells], dim=1)
    torch.testing.assert_close(layer(x), whole, rtol=0, atol=1e-10)
