"""The bottleneck blocks of video ResNets, which SlowFast and I3D-R50 are built from.

Shapes: B clips, L frames, C channels, H W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """A 3-D convolution without bias, "same" padding, then a batch normalisation (if wanted)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
        norm: bool = True,
    ) -> None:
        """`kernel` and `stride` are (frames, rows, columns); the kernel is odd."""
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
        if norm:
            self.norm = nn.BatchNorm3d(out_channels)


class ResidualBlock(nn.Module):
    """Bottleneck block: (k,1,1), (1,3,3) with the spatial stride, (1,1,1), plus the shortcut."""

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        kernel_frames: int,
        stride_pixels: int,
    ) -> None:
        """The shortcut is the identity where shapes allow it, else a strided 1x1x1 convolution."""
        super().__init__()
        stride = (1, stride_pixels, stride_pixels)
        self.temporal = ConvNorm(in_channels, inner_channels, kernel=(kernel_frames, 1, 1))
        self.spatial = ConvNorm(inner_channels, inner_channels, kernel=(1, 3, 3), stride=stride)
        self.expand = ConvNorm(inner_channels, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride_pixels != 1:
            self.shortcut = ConvNorm(in_channels, out_channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, L, H, W] to [B, C_out, L, H', W']."""
        branch = torch.relu_(self.temporal(x))
        branch = torch.relu_(self.spatial(branch))
        return torch.relu_(self.expand(branch) + self.shortcut(x))


def residual_stage(
    in_channels: int,
    out_channels: int,
    *,
    expansion: int,
    temporal_kernels: Sequence[int],
    stride_pixels: int,
) -> nn.Sequential:
    """A row of blocks; the first one changes the channels and strides over space.

    Args:
        in_channels: channels that enter the first block.
        out_channels: channels that leave each block.
        expansion: channels that leave a block for one channel inside it.
        temporal_kernels: length in frames of each block's temporal convolution, odd.
        stride_pixels: stride over rows and columns.
    """
    blocks = [
        ResidualBlock(
            in_channels if block == 0 else out_channels,
            out_channels // expansion,
            out_channels,
            kernel_frames=kernel_frames,
            stride_pixels=stride_pixels if block == 0 else 1,
        )
        for block, kernel_frames in enumerate(temporal_kernels)
    ]
    return nn.Sequential(*blocks)


def initialise_residual_network(model: nn.Module, projection: nn.Linear) -> None:
    """Fresh weights as in the SlowFast paper, drawn from torch's global generator.

    He initialisation, the last normalisation of a residual branch at zero so that each block
    starts as its shortcut, and a small projection.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, ResidualBlock):
            nn.init.zeros_(module.expand.norm.weight)
    nn.init.normal_(projection.weight, std=0.01)
    nn.init.zeros_(projection.bias)
