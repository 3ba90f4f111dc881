"""I3D on Inception-V1 (Carreira and Zisserman, Quo Vadis, CVPR 2017), for clips of any length.

Layers are named as in the widely used PyTorch port of the authors' weights (piergiaj's), so that
these can be loaded as they are; only the 1x1x1 convolution that makes the logits is `projection`
here, the same linear map. Padding is TensorFlow's "SAME": as much as lets a stride s turn n rows
into ceil(n / s), and one more at the far side where the amount is odd.

Shapes: B clips, L frames, C channels, H W pixels, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.backbones.interface import Backbone, BackboneConfig, global_mean

Size = tuple[int, int, int]

NORM_EPSILON = 1e-3
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of each Inception module: 1x1x1; before and after its two 3x3x3; after its pooling."""
POOLED_BEFORE: dict[str, tuple[Size, Size]] = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
"""Layers that a maximum pooling stands before: its window and its stride."""


@dataclass(frozen=True, kw_only=True)
class I3dInceptionConfig(BackboneConfig):
    """Everything that defines an Inception I3D; the defaults are the published network."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """The published weights want frames in -1..1."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Likewise."""
    frame_stride: int = 1
    """Of a clip, every frame whose number is a multiple of this is read."""
    channel_divisor: int = 1
    """All numbers of channels are divided by this: 1, 2, 4 or 8."""

    def __post_init__(self) -> None:
        """Refuse settings that no network can be built from."""
        super().__post_init__()
        if self.frame_stride < 1:
            raise ValueError(f"frame_stride must be at least 1, got {self.frame_stride}")
        if self.channel_divisor not in (1, 2, 4, 8):
            raise ValueError(f"channel_divisor must be 1, 2, 4 or 8, got {self.channel_divisor}")

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature: the channels of Mixed_5c."""
        return 1024 // self.channel_divisor

    def check_clip(self, num_frames: int, *, height: int, width: int) -> None:
        """Refuse clips without a frame; see `BackboneConfig`."""
        if num_frames < 1:
            raise ValueError(f"clips must hold at least 1 frame, got {num_frames}")


I3D_INCEPTION = I3dInceptionConfig()


class ConvUnit(nn.Module):
    """A 3-D convolution without bias and with "SAME" padding, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int) -> None:
        """`kernel`, odd, and `stride` are the same for frames, rows and columns."""
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, L, H, W] to [B, C_out, ceil(L/s), ceil(H/s), ceil(W/s)]."""
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        sizes = zip(x.shape[2:], kernel, stride, strict=True)
        before, after = zip(*(same_padding(*size) for size in sizes), strict=True)
        if before == after:
            x = F.conv3d(x, self.conv3d.weight, stride=stride, padding=before)
        else:
            x = F.pad(x, (before[2], after[2], before[1], after[1], before[0], after[0]))
            x = self.conv3d(x)
        return torch.relu_(self.bn(x))


class InceptionModule(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 and 3x3x3, twice; pooling and 1x1x1."""

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        """`channels` as in `MIXED`."""
        super().__init__()
        self.b0 = ConvUnit(in_channels, channels[0], kernel=1, stride=1)
        self.b1a = ConvUnit(in_channels, channels[1], kernel=1, stride=1)
        self.b1b = ConvUnit(channels[1], channels[2], kernel=3, stride=1)
        self.b2a = ConvUnit(in_channels, channels[3], kernel=1, stride=1)
        self.b2b = ConvUnit(channels[3], channels[4], kernel=3, stride=1)
        self.b3b = ConvUnit(in_channels, channels[5], kernel=1, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, L, H, W] to [B, C_out, L, H, W]."""
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(branches, dim=1)


class I3dInception(Backbone):
    """The Inception trunk up to Mixed_5c and a linear projection of the pooled features.

    Weights start by He initialisation, drawn from torch's global generator: seed it before
    building.
    """

    config: I3dInceptionConfig

    def __init__(self, config: I3dInceptionConfig) -> None:
        """Use `build_i3d_inception`."""
        super().__init__()
        self.config = config
        layers = _build_layers(config.channel_divisor)
        self._layer_names = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.feature_dim, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.projection.weight, std=0.01)
        nn.init.zeros_(self.projection.bias)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Pool Mixed_5c over time and space.

        Args:
            clips: [B, 3, L, H, W], normalised; frames 0, `frame_stride`, ... are read.

        Returns:
            [B, F].
        """
        self.check_clips(clips)
        x = clips[:, :, :: self.config.frame_stride]
        for name in self._layer_names:
            if name in POOLED_BEFORE:
                x = max_pool_same(x, *POOLED_BEFORE[name])
            x = getattr(self, name)(x)
        return global_mean(x)


def build_i3d_inception(config: I3dInceptionConfig) -> I3dInception:
    """Build the network that `config` describes, channels-last, with fresh weights."""
    return I3dInception(config).to(memory_format=torch.channels_last_3d)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows that TensorFlow's "SAME" adds before and after `size` rows."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool_same(x: Tensor, window: Size, stride: Size) -> Tensor:
    """Maximum pooling of [B, C, L, H, W] with "SAME" padding, which no maximum comes from.

    The uneven row that "SAME" adds at the far side is what `ceil_mode` lets windows reach over.
    """
    sizes = zip(x.shape[2:], window, stride, strict=True)
    before = [same_padding(*size)[0] for size in sizes]
    return F.max_pool3d(x, window, stride, padding=before, ceil_mode=True)


def _build_layers(divisor: int) -> dict[str, nn.Module]:
    """The layers with weights by name, in the order in which they run."""
    stem, wide = 64 // divisor, 192 // divisor
    layers: dict[str, nn.Module] = {
        "Conv3d_1a_7x7": ConvUnit(3, stem, kernel=7, stride=2),
        "Conv3d_2b_1x1": ConvUnit(stem, stem, kernel=1, stride=1),
        "Conv3d_2c_3x3": ConvUnit(stem, wide, kernel=3, stride=1),
    }
    in_channels = wide
    for name, published in MIXED.items():
        channels = [count // divisor for count in published]
        layers[name] = InceptionModule(in_channels, channels)
        in_channels = channels[0] + channels[2] + channels[4] + channels[5]
    return layers
