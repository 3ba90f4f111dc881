import pytest
import torch

from tfn_models.layers.lstm import BiLstm


def test_alone_or_beside_longer_videos_gives_the_same() -> None:
    torch.manual_seed(0)
    layer = BiLstm(6, num_layers=2)
    x = torch.randn(3, 7, 6)
    lengths = torch.tensor([7, 3, 0])
    mask = torch.arange(7) < lengths[:, None]
    x[~mask] = torch.nan
    output = layer(x, mask)
    torch.testing.assert_close(output[1, :3], layer(x[1:2, :3])[0])
    torch.testing.assert_close(output[0], layer(x[:1])[0])
    assert output.shape == x.shape
    assert (output[~mask] == 0).all()


def test_both_directions_see_the_whole_sequence() -> None:
    torch.manual_seed(0)
    layer = BiLstm(4, num_layers=1)
    x = torch.randn(1, 5, 4, requires_grad=True)
    layer(x)[0, 2].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(-1) > 0).all()


def test_gradients_are_finite_and_nothing_comes_from_padding() -> None:
    torch.manual_seed(0)
    layer = BiLstm(4, num_layers=1)
    x = torch.randn(2, 5, 4, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    layer(x, mask).square().sum().backward()
    assert x.grad is not None
    assert (x.grad[~mask] == 0).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("masked", [False, True])
def test_gradients(masked: bool) -> None:
    torch.manual_seed(0)
    layer = BiLstm(4, num_layers=2).double()
    x = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None] if masked else None
    assert torch.autograd.gradcheck(lambda value: layer(value, mask), (x,))
    for name, value in layer.named_parameters():

        def with_weight(value: torch.Tensor, name: str = name) -> torch.Tensor:
            output: torch.Tensor = torch.func.functional_call(layer, {name: value}, (x, mask))
            return output

        weight = value.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(with_weight, (weight,), fast_mode=True), name


def test_against_a_loop() -> None:
    """The recurrence written out (Hochreiter and Schmidhuber), both ways."""
    torch.manual_seed(0)
    layer = BiLstm(4, num_layers=1).double()
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    weights = dict(layer.lstm.named_parameters())
    expected = torch.zeros(5, 4, dtype=torch.float64)
    for suffix, order, part in (
        ("", range(5), slice(2)),
        ("_reverse", range(4, -1, -1), slice(2, 4)),
    ):
        hidden = cell = torch.zeros(2, dtype=torch.float64)
        for t in order:
            gates = weights[f"weight_ih_l0{suffix}"] @ x[0, t] + weights[f"bias_ih_l0{suffix}"]
            gates = gates + weights[f"weight_hh_l0{suffix}"] @ hidden
            gates = gates + weights[f"bias_hh_l0{suffix}"]
            enter, forget, new, leave = gates.view(4, 2)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            expected[t, part] = hidden
    torch.testing.assert_close(layer(x)[0], expected)


def test_bf16_autocast_stays_near_fp32() -> None:
    torch.manual_seed(0)
    layer, x = BiLstm(8, num_layers=1), torch.randn(2, 6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x)
    torch.testing.assert_close(output.float(), layer(x), rtol=0, atol=0.02)


@pytest.mark.parametrize(("channels", "num_layers"), [(3, 1), (0, 1), (4, 0)])
def test_refuses_sizes(channels: int, num_layers: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        BiLstm(channels, num_layers=num_layers)
