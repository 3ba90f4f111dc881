"""I3D on a ResNet-50: the inflated 3-D ResNet of PySlowFast's and pytorchvideo's model zoos.

A 2-D ResNet whose blocks convolve over time with a kernel of 3 in every other block
(Wang et al., Non-local Neural Networks, CVPR 2018, table 1, "I3D"), with one maximum pooling over
time after res2. Layers and numbers follow PySlowFast, so that its weights give the same features.

Shapes: B clips, L frames, C channels, H W pixels, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfn_models.backbones.frames import IMAGENET_MEAN, IMAGENET_STD
from tfn_models.backbones.interface import Backbone, BackboneConfig, global_mean
from tfn_models.backbones.residual import ConvNorm, initialise_residual_network, residual_stage

Pattern = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class I3dResNetConfig(BackboneConfig):
    """Everything that defines an I3D ResNet; the defaults are I3D-R50 8x8."""

    frame_stride: int = 4
    """Of a clip, every frame whose number is a multiple of this is read: 8 of 32."""
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks in res2, res3, res4, res5."""
    temporal_kernels: tuple[Pattern, Pattern, Pattern, Pattern] = ((3,), (3, 1), (3, 1), (1, 3))
    """For each stage, the length in frames, odd, of its blocks' temporal convolutions; repeated
    from the start where a stage has more blocks."""
    channels: int = 64
    """Channels of the stem; each stage doubles the width inside its blocks."""
    expansion: int = 4
    """Channels that leave a residual block for one channel inside it."""
    stem_kernel_frames: int = 5
    """Length in frames of the stem convolution, odd."""
    stem_stride_frames: int = 1
    """Of the frames that are read, the stem makes one for every so many."""
    stem_kernel_pixels: int = 7
    """Height and width of the stem convolution, odd."""
    pooled_frames: int = 2
    """Frames that the maximum pooling after res2 turns into one; 1 for none."""

    def __post_init__(self) -> None:
        """Refuse settings that no network can be built from."""
        super().__post_init__()
        for name in (
            "frame_stride",
            "stem_stride_frames",
            "channels",
            "expansion",
            "pooled_frames",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ValueError(f"depths must be four numbers of at least 1, got {self.depths}")
        kernels = self.temporal_kernels
        if len(kernels) != 4 or not all(
            pattern and all(kernel % 2 == 1 for kernel in pattern) for pattern in kernels
        ):
            raise ValueError(
                f"temporal_kernels must be four patterns of odd numbers, got {kernels}"
            )
        for name in ("stem_kernel_frames", "stem_kernel_pixels"):
            if getattr(self, name) % 2 != 1:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature: the channels of res5."""
        return self.expansion * 8 * self.channels

    def check_clip(self, num_frames: int, *, height: int, width: int) -> None:
        """Refuse clips with too few frames for the pooling over time; see `BackboneConfig`."""
        frame_ratio = self.frame_stride * self.stem_stride_frames
        needed = (self.pooled_frames - 1) * frame_ratio + 1
        if num_frames < needed:
            raise ValueError(
                f"clips must hold at least {needed} frames, of which res2 sees one in "
                f"{frame_ratio}, got {num_frames}"
            )


I3D_R50 = I3dResNetConfig()
# mmaction2's strides by 2 in the stem and by 2 in the pooling behind it, which is to stride by 4.
I3D_R50_MMACTION2 = I3dResNetConfig(
    frame_stride=1, stem_stride_frames=4, mean=IMAGENET_MEAN, std=IMAGENET_STD
)


class I3dResNet(Backbone):
    """Stem, four stages of bottleneck blocks, and a linear projection of the pooled features.

    Weights start as in the SlowFast paper, drawn from torch's global generator: seed it before
    building.
    """

    config: I3dResNetConfig

    def __init__(self, config: I3dResNetConfig) -> None:
        """Use `build_i3d_resnet`."""
        super().__init__()
        self.config = config
        pixels = config.stem_kernel_pixels
        self.stem = ConvNorm(
            3,
            config.channels,
            kernel=(config.stem_kernel_frames, pixels, pixels),
            stride=(config.stem_stride_frames, 2, 2),
        )
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.stages = _build_stages(config)
        self.frame_pool = nn.MaxPool3d((config.pooled_frames, 1, 1))
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.feature_dim, config.num_classes)
        initialise_residual_network(self, self.projection)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Pool res5 over time and space.

        Args:
            clips: [B, 3, L, H, W], normalised; frames 0, `frame_stride`, ... are read.

        Returns:
            [B, F].
        """
        self.check_clips(clips)
        x = clips[:, :, :: self.config.frame_stride]
        x = self.pool(torch.relu_(self.stem(x)))
        x = self.frame_pool(self.stages[0](x))
        for stage in self.stages[1:]:
            x = stage(x)
        return global_mean(x)


def build_i3d_resnet(config: I3dResNetConfig) -> I3dResNet:
    """Build the network that `config` describes, channels-last, with fresh weights."""
    return I3dResNet(config).to(memory_format=torch.channels_last_3d)


def _build_stages(config: I3dResNetConfig) -> nn.ModuleList:
    stages = nn.ModuleList()
    in_channels = config.channels
    for stage, (depth, pattern) in enumerate(
        zip(config.depths, config.temporal_kernels, strict=True)
    ):
        out_channels = config.channels * config.expansion * 2**stage
        stages.append(
            residual_stage(
                in_channels,
                out_channels,
                expansion=config.expansion,
                temporal_kernels=[pattern[block % len(pattern)] for block in range(depth)],
                stride_pixels=2 if stage > 0 else 1,
            )
        )
        in_channels = out_channels
    return stages
