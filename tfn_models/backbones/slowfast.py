"""SlowFast networks (Feichtenhofer et al., ICCV 2019): the backbone of the paper, section 1.1.

One code for R50, R101 and the small network of the demo: they differ in `SlowFastConfig` only.
Layers and numbers follow pytorchvideo and PySlowFast, so that their weights can be loaded
(`pytorchvideo_names.py`) and give the same features.

Shapes: B clips, L frames of the fast pathway, C channels, H W pixels, F features, K classes.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

SLOW, FAST = 0, 1


@dataclass(frozen=True)
class SlowFastConfig:
    """Everything that defines a SlowFast network; the defaults are SlowFast-R50 8x8."""

    num_classes: int = 400
    """Outputs of the projection."""
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks in res2, res3, res4, res5, the same in both pathways."""
    temporal_depths: tuple[int, int, int, int] | None = None
    """Blocks of a stage, from its first, that convolve over time where their pathway does;
    None for all. (3, 4, 6, 3) in an R101 gives PySlowFast's "R101_50_50"."""
    slow_channels: int = 64
    """Channels of the slow stem; each stage doubles the width inside its blocks."""
    channel_ratio: int = 8
    """Slow channels for one fast channel: 1 / beta of the SlowFast paper."""
    frame_ratio: int = 4
    """Fast frames for one slow frame: alpha of the SlowFast paper."""
    expansion: int = 4
    """Channels that leave a residual block for one channel inside it."""
    stem_kernel_pixels: int = 7
    """Height and width of the stem convolutions, odd."""
    fusion_ratio: int = 2
    """Channels of a lateral connection for one channel of the fast pathway."""
    fusion_kernel_frames: int = 7
    """Length in fast frames of the lateral convolution, odd: 7 in pytorchvideo's defaults and its
    R50, 5 in PySlowFast and the R101s."""
    fusion_norm: bool = True
    """Whether a batch normalisation follows the lateral convolution."""
    slow_sampling: Literal["stride", "linspace"] = "stride"
    """Slow frames: every `frame_ratio`-th from the first, or evenly spread from first to last."""
    dropout: float = 0.5
    """Probability of dropping a feature before the projection."""

    def __post_init__(self) -> None:
        """Refuse settings that no network can be built from."""
        for name in ("num_classes", "slow_channels", "channel_ratio", "frame_ratio", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ValueError(f"depths must be four numbers of at least 1, got {self.depths}")
        if self.temporal_depths is not None and len(self.temporal_depths) != 4:
            raise ValueError(f"temporal_depths must be four numbers, got {self.temporal_depths}")
        if self.slow_channels % self.channel_ratio:
            raise ValueError(
                f"slow_channels must be a multiple of channel_ratio={self.channel_ratio}, "
                f"got {self.slow_channels}"
            )
        for name in ("stem_kernel_pixels", "fusion_kernel_frames"):
            if getattr(self, name) % 2 != 1:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")
        if self.slow_sampling not in ("stride", "linspace"):
            raise ValueError(
                f"slow_sampling must be 'stride' or 'linspace', got {self.slow_sampling!r}"
            )

    @property
    def stem_channels(self) -> tuple[int, int]:
        """Channels of the slow and the fast stem."""
        return self.slow_channels, self.slow_channels // self.channel_ratio

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature: the channels of res5 of both pathways."""
        return sum(self.expansion * 8 * channels for channels in self.stem_channels)


SLOWFAST_R50 = SlowFastConfig()
SLOWFAST_R101 = SlowFastConfig(depths=(3, 4, 23, 3), fusion_kernel_frames=5)
SLOWFAST_TINY = SlowFastConfig(
    depths=(1, 1, 1, 1),
    slow_channels=16,
    channel_ratio=2,
    expansion=2,
    stem_kernel_pixels=5,
    fusion_kernel_frames=5,
    dropout=0.2,
)


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


class SlowFast(nn.Module):
    """The two pathways, their lateral connections, and a linear projection of the pooled features.

    Weights start as in the SlowFast paper (He initialisation, last normalisation of a residual
    branch at zero), drawn from torch's global generator: seed it before building.
    """

    def __init__(self, config: SlowFastConfig) -> None:
        """Use `build_slowfast`."""
        super().__init__()
        self.config = config
        self.slow_stem = _build_stem(config, SLOW, kernel_frames=1)
        self.fast_stem = _build_stem(config, FAST, kernel_frames=5)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        fast_widths = (config.stem_channels[FAST], *_stage_channels(config, FAST)[:-1])
        self.fusions = nn.ModuleList(_build_fusion(config, width) for width in fast_widths)
        self.slow_stages = _build_stages(config, SLOW)
        self.fast_stages = _build_stages(config, FAST)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.feature_dim, config.num_classes)
        self._initialise()

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature."""
        return self.config.feature_dim

    def forward_features(self, clips: Tensor) -> Tensor:
        """Pool res5 of both pathways over time and space (paper, section 1.2).

        Args:
            clips: [B, 3, L, H, W], normalised; L a multiple of `frame_ratio`.

        Returns:
            [B, F]: slow channels, then fast channels.
        """
        self._check_clips(clips)
        slow = self.pool(torch.relu_(self.slow_stem(self._slow_frames(clips))))
        fast = self.pool(torch.relu_(self.fast_stem(clips)))
        stages = zip(self.fusions, self.slow_stages, self.fast_stages, strict=True)
        for fusion, slow_stage, fast_stage in stages:
            slow = slow_stage(torch.cat([slow, torch.relu_(fusion(fast))], dim=1))
            fast = fast_stage(fast)
        return torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips [B, 3, L, H, W] to logits [B, K]."""
        logits: Tensor = self.projection(self.dropout(self.forward_features(clips)))
        return logits

    def _slow_frames(self, clips: Tensor) -> Tensor:
        ratio, num_frames = self.config.frame_ratio, clips.shape[2]
        if self.config.slow_sampling == "stride":
            return clips[:, :, ::ratio]
        # In fp32 and truncated, as PySlowFast and pytorchvideo pack their pathways.
        chosen = torch.linspace(0, num_frames - 1, num_frames // ratio).long()
        return clips.index_select(2, chosen.to(clips.device))

    def _check_clips(self, clips: Tensor) -> None:
        ratio = self.config.frame_ratio
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ValueError(f"clips must be [B, 3, L, H, W], got {list(clips.shape)}")
        if clips.shape[2] == 0 or clips.shape[2] % ratio:
            raise ValueError(
                f"clips must hold a multiple of frame_ratio={ratio} frames, got {clips.shape[2]}"
            )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.expand.norm.weight)
        nn.init.normal_(self.projection.weight, std=0.01)
        nn.init.zeros_(self.projection.bias)


def build_slowfast(config: SlowFastConfig) -> SlowFast:
    """Build the network that `config` describes, with fresh weights.

    Its convolutions are laid out channels-last, as are the clips that `normalize_frames` makes:
    inference of SLOWFAST_TINY on a CPU is 1.3 times as fast so, training the same.
    """
    return SlowFast(config).to(memory_format=torch.channels_last_3d)


def _stage_channels(config: SlowFastConfig, pathway: int) -> list[int]:
    """Channels that leave res2, res3, res4, res5."""
    return [config.stem_channels[pathway] * config.expansion * 2**stage for stage in range(4)]


def _build_stem(config: SlowFastConfig, pathway: int, *, kernel_frames: int) -> ConvNorm:
    kernel = (kernel_frames, config.stem_kernel_pixels, config.stem_kernel_pixels)
    return ConvNorm(3, config.stem_channels[pathway], kernel=kernel, stride=(1, 2, 2))


def _build_fusion(config: SlowFastConfig, fast_channels: int) -> ConvNorm:
    """The lateral connection: a convolution over time that strides to the slow frame rate."""
    return ConvNorm(
        fast_channels,
        fast_channels * config.fusion_ratio,
        kernel=(config.fusion_kernel_frames, 1, 1),
        stride=(config.frame_ratio, 1, 1),
        norm=config.fusion_norm,
    )


def _build_stages(config: SlowFastConfig, pathway: int) -> nn.ModuleList:
    """Res2 to res5 of one pathway; the slow one convolves over time in res4 and res5 only."""
    fused = config.stem_channels[FAST] * config.fusion_ratio if pathway == SLOW else 0
    stages = nn.ModuleList()
    widths = [config.stem_channels[pathway], *_stage_channels(config, pathway)]
    for stage, (in_channels, out_channels) in enumerate(pairwise(widths)):
        num_temporal = (config.temporal_depths or config.depths)[stage]
        convolves_time = pathway == FAST or stage >= 2
        # A stage's input carries the lateral channels of the fast pathway's previous stage.
        lateral = fused if stage == 0 else fused * config.expansion * 2 ** (stage - 1)
        blocks = [
            ResidualBlock(
                in_channels + lateral if block == 0 else out_channels,
                out_channels // config.expansion,
                out_channels,
                kernel_frames=3 if convolves_time and block < num_temporal else 1,
                stride_pixels=2 if block == 0 and stage > 0 else 1,
            )
            for block in range(config.depths[stage])
        ]
        stages.append(nn.Sequential(*blocks))
    return stages
