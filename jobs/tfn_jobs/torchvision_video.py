"""torchvision's video models behind the interface of our own backbones.

They stand here and not in `tfn_models`, which is torch and numpy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tfn_models.backbones.frames import IMAGENET_MEAN, IMAGENET_STD
from tfn_models.backbones.interface import Backbone, BackboneConfig

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
"""What the published weights of the convolutional models were trained with."""


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig(BackboneConfig):
    """One of torchvision's video models, and what its published weights were trained on."""

    builder: str
    """Name of the function in torchvision.models.video that builds it."""
    head: str
    """Its attribute that turns a feature into logits."""
    num_features: int
    """Length F of a clip's feature."""
    frame_stride: int = 1
    """Of a clip, every frame whose number is a multiple of this is read."""
    num_frames: int = 1
    """The fewest frames that it can read."""
    side_pixels: int = 1
    """The fewest rows and columns that it can read."""
    fixed_size: bool = False
    """Whether it reads exactly so many frames, rows and columns, not more."""

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature."""
        return self.num_features

    def check_clip(self, num_frames: int, *, height: int, width: int) -> None:
        """Refuse clips that are too small, or not of the one size it has positions for."""
        num_read = len(range(0, num_frames, self.frame_stride))
        allowed = "exactly" if self.fixed_size else "at least"
        if num_read < self.num_frames or (self.fixed_size and num_read > self.num_frames):
            raise ValueError(
                f"clips must hold {allowed} {self.num_frames * self.frame_stride} frames for "
                f"{self.builder}, got {num_frames}"
            )
        low, high = min(height, width), max(height, width)
        if low < self.side_pixels or (self.fixed_size and high > self.side_pixels):
            raise ValueError(
                f"clips must be {allowed} {self.side_pixels} pixels high and wide for "
                f"{self.builder}, got {height} and {width}"
            )


class TorchvisionBackbone(Backbone):
    """A video model of torchvision with `projection` in place of its last layer.

    A feature is what entered that layer: the mean over time and space, in an MViT the class
    token. torchvision's S3D averages windows of 2 x 7 x 7, and then what they give, instead: the
    same where there is one window, as in clips of 16 frames of 224 x 224.
    """

    config: TorchvisionConfig

    def __init__(self, config: TorchvisionConfig) -> None:
        """Use `build_torchvision`."""
        super().__init__()
        # Its import takes as long as torch's own, and who only checks a spec needs no network.
        from torchvision.models import video

        self.config = config
        self.network: nn.Module = getattr(video, config.builder)(weights=None)
        setattr(self.network, config.head, nn.Identity())
        if config.builder == "s3d":
            self.network.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.feature_dim, config.num_classes)
        nn.init.normal_(self.projection.weight, std=0.01)
        nn.init.zeros_(self.projection.bias)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Map clips [B, 3, L, H, W] to features [B, F]; frames 0, `frame_stride`, ... are read."""
        self.check_clips(clips)
        features: Tensor = self.network(clips[:, :, :: self.config.frame_stride])
        return features


def build_torchvision(config: TorchvisionConfig) -> TorchvisionBackbone:
    """Build the network that `config` describes, with fresh weights."""
    return TorchvisionBackbone(config)


def from_torchvision(config: TorchvisionConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict of torchvision's model into one of `TorchvisionBackbone`."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith(f"{config.head}."):
            # The linear layer follows a dropout in some models, and S3D's is a convolution.
            is_matrix = tensor.ndim == 5 and tensor.shape[2:].numel() == 1
            renamed[f"projection.{name.rpartition('.')[2]}"] = (
                tensor.flatten(1) if is_matrix else tensor
            )
        else:
            renamed[f"network.{name}"] = tensor
    return renamed


def _residual(builder: str) -> TorchvisionConfig:
    return TorchvisionConfig(
        builder=builder,
        head="fc",
        num_features=512,
        dropout=0.0,
        mean=KINETICS_MEAN,
        std=KINETICS_STD,
    )


def _mvit(builder: str) -> TorchvisionConfig:
    """16 frames at 7.5 a second, so of a clip of 32 at 15 a second every other one."""
    return TorchvisionConfig(
        builder=builder,
        head="head",
        num_features=768,
        frame_stride=2,
        num_frames=16,
        side_pixels=224,
        fixed_size=True,
    )


def _swin(builder: str, *, num_features: int) -> TorchvisionConfig:
    return TorchvisionConfig(
        builder=builder,
        head="head",
        num_features=num_features,
        dropout=0.0,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


TORCHVISION: dict[str, BackboneConfig] = {
    "r3d_18": _residual("r3d_18"),
    "mc3_18": _residual("mc3_18"),
    "r2plus1d_18": _residual("r2plus1d_18"),
    "s3d": TorchvisionConfig(
        builder="s3d",
        head="classifier",
        num_features=1024,
        num_frames=5,
        side_pixels=17,
        dropout=0.2,
        mean=KINETICS_MEAN,
        std=KINETICS_STD,
    ),
    "mvit_v1_b": _mvit("mvit_v1_b"),
    "mvit_v2_s": _mvit("mvit_v2_s"),
    "swin3d_t": _swin("swin3d_t", num_features=768),
    "swin3d_s": _swin("swin3d_s", num_features=768),
    "swin3d_b": _swin("swin3d_b", num_features=1024),
}
