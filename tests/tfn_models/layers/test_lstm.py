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


@pytest.mark.parametrize(("channels", "num_layers"), [(3, 1), (0, 1), (4, 0)])
def test_refuses_sizes(channels: int, num_layers: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        BiLstm(channels, num_layers=num_layers)
