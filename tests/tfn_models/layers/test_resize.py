"""Resizing along time against torch's own interpolation and against cases worked by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tfn_models.layers.resize import cell_centres, interpolation_matrix, resize_sequence


@pytest.mark.parametrize("length", [1, 2, 7, 30])
@pytest.mark.parametrize("new_length", [1, 3, 7, 50])
def test_equals_torch_interpolate(length: int, new_length: int) -> None:
    x = torch.randn(2, length, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(
        x.transpose(1, 2), size=new_length, mode="linear", align_corners=False
    ).transpose(1, 2)
    torch.testing.assert_close(resize_sequence(x, new_length), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(resize_sequence(x[0], new_length), expected[0], rtol=0, atol=1e-12)


def test_worked_by_hand() -> None:
    x = torch.tensor([[0.0], [4.0]])
    # Centres of four cells lie at -0.25, 0.25, 0.75, 1.25 on two.
    assert resize_sequence(x, 4).squeeze(1).tolist() == [0.0, 1.0, 3.0, 4.0]
    assert cell_centres(2, 4).tolist() == [-0.25, 0.25, 0.75, 1.25]


def test_half_precision_is_resized_in_fp32() -> None:
    x = torch.tensor([[2048.0], [2050.0]], dtype=torch.float16)
    resized = resize_sequence(x, 4)
    assert resized.dtype == torch.float32
    assert resized.squeeze(1).tolist() == [2048.0, 2048.5, 2049.5, 2050.0]


def test_same_length_is_unchanged() -> None:
    x = torch.randn(9, 3)
    assert torch.equal(resize_sequence(x, 9), x)


@pytest.mark.parametrize(("length", "new_length"), [(5, 3), (3, 7), (4, 4)])
def test_gradients(length: int, new_length: int) -> None:
    x = torch.randn(2, length, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: resize_sequence(value, new_length), (x,))


def test_interpolation_matrix_reads_positions() -> None:
    matrix = interpolation_matrix(np.array([-1.0, 0.0, 1.25, 9.0]), 3)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0.75, 0.25], [0, 0, 1]]


def test_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"\[T, F\] or \[B, T, F\], got shape \(3,\)"):
        resize_sequence(torch.zeros(3), 2)
    with pytest.raises(ValueError, match="at least 1, got 3 and 0"):
        resize_sequence(torch.zeros(3, 2), 0)
