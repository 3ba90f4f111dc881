"""What every backbone offers, whichever network it is: features, logits, and which clips it reads.

Shapes: B clips, L frames, H W pixels, F features, K classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfn_models.backbones.frames import FRAME_MEAN, FRAME_STD


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(ABC):
    """What all backbones have in common; a network adds what defines it."""

    num_classes: int = 400
    """Outputs of the projection."""
    dropout: float = 0.5
    """Probability of dropping a feature before the projection."""
    mean: tuple[float, float, float] = FRAME_MEAN
    """What the published weights expect to be subtracted from red, green and blue in 0..1."""
    std: tuple[float, float, float] = FRAME_STD
    """What they expect the channels to be divided by after that."""

    def __post_init__(self) -> None:
        """Refuse settings that no network can be built from."""
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must be three numbers, std positive, got {self.mean}, {self.std}"
            )

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Length F of a clip's feature."""

    @abstractmethod
    def check_clip(self, num_frames: int, *, height: int, width: int) -> None:
        """Find out before any work whether the network can read clips of this size.

        Args:
            num_frames: L, all frames of the clip, also those that the network passes over.
            height: pixels.
            width: pixels.

        Raises:
            ValueError: it cannot; says which clips it reads.
        """


class Backbone(nn.Module, ABC):
    """A network that turns a clip into a feature, and the feature into logits."""

    config: BackboneConfig
    dropout: nn.Dropout
    projection: nn.Linear
    """The last layer, F to K: what a fine-tuning on other classes makes anew."""

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature."""
        return self.config.feature_dim

    @abstractmethod
    def forward_features(self, clips: Tensor) -> Tensor:
        """Map clips [B, 3, L, H, W], normalised as the config's mean and std say, to [B, F].

        Raises:
            ValueError: the network cannot read clips of this shape.
        """

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips [B, 3, L, H, W] to logits [B, K]."""
        # Features of a network in half precision are fp32, see `global_mean`; a linear layer reads
        # what it is made of.
        features = self.forward_features(clips).to(self.projection.weight.dtype)
        logits: Tensor = self.projection(self.dropout(features))
        return logits

    def check_clips(self, clips: Tensor) -> None:
        """Raise ValueError unless `clips` are [B, 3, L, H, W] of a size that the network reads."""
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ValueError(f"clips must be [B, 3, L, H, W], got {list(clips.shape)}")
        num_frames, height, width = clips.shape[2:]
        self.config.check_clip(num_frames, height=height, width=width)


def global_mean(x: Tensor) -> Tensor:
    """Average [B, C, L, H, W] over time and space to [B, C] (paper, section 1.2).

    Activations of half precision are averaged, and the result kept, in fp32: a feature of 8 bits
    would be coarser than what made it.
    """
    return x.mean(dim=(2, 3, 4), dtype=torch.promote_types(x.dtype, torch.float32))
