"""Bottleneck blocks against their definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.backbones.residual import (
    ConvNorm,
    ResidualBlock,
    initialise_residual_network,
    residual_stage,
)


def conv_norm(layer: ConvNorm, x: Tensor, *, padding: object, stride: object = 1) -> Tensor:
    """The convolution, then (x - mean) / sqrt(variance + 1e-5) * weight + bias a channel."""
    made = F.conv3d(x, layer.conv.weight, stride=stride, padding=padding)  # type: ignore[arg-type]
    norm = layer.norm
    columns = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    mean, variance, weight, bias = (column[None, :, None, None, None] for column in columns)
    return (made - mean) / (variance + 1e-5).sqrt() * weight + bias


def stir(module: nn.Module) -> None:
    """Statistics and scales as after a training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)


@pytest.mark.parametrize(("in_channels", "stride"), [(4, 1), (8, 1), (4, 2), (8, 2)])
@pytest.mark.parametrize("kernel_frames", [1, 3])
def test_a_block_by_its_definition(in_channels: int, stride: int, kernel_frames: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(in_channels, 2, 8, kernel_frames=kernel_frames, stride_pixels=stride)
    block = block.double().eval()
    stir(block)
    x = torch.randn(2, in_channels, 5, 6, 7, dtype=torch.float64)
    strides = (1, stride, stride)
    inner = conv_norm(block.temporal, x, padding=(kernel_frames // 2, 0, 0)).clamp(min=0)
    inner = conv_norm(block.spatial, inner, padding=(0, 1, 1), stride=strides).clamp(min=0)
    beside = x
    if isinstance(block.shortcut, ConvNorm):
        beside = conv_norm(block.shortcut, x, padding=0, stride=strides)
    assert isinstance(block.shortcut, nn.Identity) == (in_channels == 8 and stride == 1)
    expected = (conv_norm(block.expand, inner, padding=0) + beside).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


def test_a_stage_changes_channels_and_size_in_its_first_block() -> None:
    stage = residual_stage(6, 8, expansion=4, temporal_kernels=[3, 1, 5], stride_pixels=2)
    shapes = []
    x = torch.randn(1, 6, 4, 9, 9)
    for block in stage:
        x = block(x)
        shapes.append(list(x.shape))
    assert shapes == [[1, 8, 4, 5, 5]] * 3
    assert [block.temporal.conv.kernel_size[0] for block in stage] == [3, 1, 5]
    assert {block.spatial.conv.out_channels for block in stage} == {2}


def test_fresh_blocks_start_as_their_shortcuts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ResidualBlock(8, 4, 8, kernel_frames=3, stride_pixels=1))
    projection = nn.Linear(8, 3)
    initialise_residual_network(model, projection)
    x = torch.rand(1, 8, 4, 5, 5)
    assert torch.equal(model.eval()(x), x)
    assert 0 < float(projection.weight.detach().abs().max()) < 0.1
    assert not projection.bias.any()
