"""SlowFast networks (Feichtenhofer et al., ICCV 2019): the backbone of the paper, section 1.1.

One code for R50, R101 and the small network of the demo: they differ in `SlowFastConfig` only.
Layers and numbers follow pytorchvideo and PySlowFast, so that their weights can be loaded and give
the same features.

Shapes: B clips, L frames of the fast pathway, C channels, H W pixels, F features.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from tfn_models.backbones.frames import IMAGENET_MEAN, IMAGENET_STD
from tfn_models.backbones.interface import Backbone, BackboneConfig, global_mean
from tfn_models.backbones.residual import ConvNorm, initialise_residual_network, residual_stage

SLOW, FAST = 0, 1


@dataclass(frozen=True, kw_only=True)
class SlowFastConfig(BackboneConfig):
    """Everything that defines a SlowFast network; the defaults are SlowFast-R50 8x8."""

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
    """Length in fast frames of the lateral convolution, odd: 7 in the published R50 8x8, 5 in the
    R101s of PySlowFast and pytorchvideo."""
    fusion_norm: bool = True
    """Whether a batch normalisation follows the lateral convolution."""
    fusion_relu: bool = True
    """Whether a ReLU ends a lateral connection; in mmaction2 only where there is a norm."""
    slow_sampling: Literal["stride", "linspace"] = "linspace"
    """Slow frames: every `frame_ratio`-th from the first, as in mmaction2, or evenly spread from
    first to last, as PySlowFast and pytorchvideo trained their published weights."""

    def __post_init__(self) -> None:
        """Refuse settings that no network can be built from."""
        super().__post_init__()
        for name in ("slow_channels", "channel_ratio", "frame_ratio", "expansion", "fusion_ratio"):
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

    def check_clip(self, num_frames: int, *, height: int, width: int) -> None:
        """Refuse clips that cannot be split into slow and fast frames; see `BackboneConfig`."""
        if num_frames == 0 or num_frames % self.frame_ratio:
            raise ValueError(
                f"clips must hold a multiple of frame_ratio={self.frame_ratio} frames, "
                f"got {num_frames}"
            )


SLOWFAST_R50 = SlowFastConfig()
SLOWFAST_R101 = SlowFastConfig(depths=(3, 4, 23, 3), fusion_kernel_frames=5)
SLOWFAST_R101_50_50 = SlowFastConfig(
    depths=(3, 4, 23, 3), temporal_depths=(3, 4, 6, 3), fusion_kernel_frames=5
)
SLOWFAST_R50_MMACTION2 = SlowFastConfig(
    fusion_norm=False,
    fusion_relu=False,
    slow_sampling="stride",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
SLOWFAST_R101_MMACTION2 = replace(SLOWFAST_R50_MMACTION2, depths=(3, 4, 23, 3))
SLOWFAST_TINY = SlowFastConfig(
    depths=(1, 1, 1, 1),
    slow_channels=16,
    channel_ratio=2,
    expansion=2,
    stem_kernel_pixels=5,
    fusion_kernel_frames=5,
    slow_sampling="stride",
    dropout=0.2,
)


class SlowFast(Backbone):
    """The two pathways, their lateral connections, and a linear projection of the pooled features.

    Weights start as in the SlowFast paper, drawn from torch's global generator: seed it before
    building.
    """

    config: SlowFastConfig

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
        initialise_residual_network(self, self.projection)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Pool res5 of both pathways over time and space (paper, section 1.2).

        Args:
            clips: [B, 3, L, H, W], normalised; L a multiple of `frame_ratio`.

        Returns:
            [B, F]: slow channels, then fast channels.
        """
        self.check_clips(clips)
        slow = self.pool(torch.relu_(self.slow_stem(self._slow_frames(clips))))
        fast = self.pool(torch.relu_(self.fast_stem(clips)))
        stages = zip(self.fusions, self.slow_stages, self.fast_stages, strict=True)
        for fusion, slow_stage, fast_stage in stages:
            lateral = fusion(fast)
            if self.config.fusion_relu:
                lateral = torch.relu_(lateral)
            slow = slow_stage(torch.cat([slow, lateral], dim=1))
            fast = fast_stage(fast)
        return torch.cat([global_mean(slow), global_mean(fast)], dim=1)

    def _slow_frames(self, clips: Tensor) -> Tensor:
        ratio, num_frames = self.config.frame_ratio, clips.shape[2]
        if self.config.slow_sampling == "stride":
            return clips[:, :, ::ratio]
        # In fp32, on the CPU and truncated, as PySlowFast and pytorchvideo pack their pathways.
        chosen = torch.linspace(0, num_frames - 1, num_frames // ratio).long()
        return clips.index_select(2, chosen.to(clips.device))


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
        stages.append(
            residual_stage(
                in_channels + lateral,
                out_channels,
                expansion=config.expansion,
                temporal_kernels=[
                    3 if convolves_time and block < num_temporal else 1
                    for block in range(config.depths[stage])
                ],
                stride_pixels=2 if stage > 0 else 1,
            )
        )
    return stages
