"""Video-level classifier on the features of a video's clips (paper, sections 1.1 and 2.1).

Clips -> optional Transformer over time -> mean over the video -> dropout -> linear head.

Shapes: B videos, T snippets, F features, C channels, K classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tfn_models.layers.masks import check_sequence
from tfn_models.layers.transformer import TemporalTransformer


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that defines a classifier."""

    num_classes: int
    """K, outputs of the head."""
    feature_dim: int
    """F, length of a snippet's feature."""
    pooling: Literal["mean", "transformer"] = "mean"
    """How a video's snippets become one vector: their mean, or the mean of what a Transformer
    encoder makes of them."""
    transformer_channels: int = 512
    """C, width of the Transformer, to which features are first projected."""
    transformer_layers: int = 2
    """Encoder layers of the Transformer."""
    transformer_heads: int = 8
    """Attention heads of a layer, local ones included."""
    local_heads: int = 4
    """How many of the heads see only a window around each snippet."""
    local_window: int = 9
    """Snippets in that window, odd."""
    feedforward_channels: int = 256
    """Hidden channels of a layer's feed-forward part."""
    transformer_dropout: float = 0.1
    """Dropout probability inside the Transformer."""
    hidden_channels: int = 0
    """Channels of a hidden layer before the head; 0 for a linear head alone."""
    dropout: float = 0.5
    """Probability of dropping a channel before each linear layer of the head."""

    def __post_init__(self) -> None:
        """Refuse settings that no classifier can be built from."""
        for name in ("num_classes", "feature_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.pooling not in ("mean", "transformer"):
            raise ValueError(f"pooling must be 'mean' or 'transformer', got {self.pooling!r}")
        if self.hidden_channels < 0:
            raise ValueError(f"hidden_channels must be at least 0, got {self.hidden_channels}")
        for name in ("dropout", "transformer_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in 0 to below 1, got {getattr(self, name)}")


class Classifier(nn.Module):
    """Pools a video's features and scores its classes."""

    def __init__(
        self,
        *,
        feature_dim: int,
        projection: nn.Linear | None,
        transformer: TemporalTransformer | None,
        head: nn.Sequential,
    ) -> None:
        """Take the parts that `build_classifier` made; the two in the middle come together."""
        super().__init__()
        self.feature_dim = feature_dim
        self.projection = projection
        self.transformer = transformer
        self.head = head

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Map features [B, T, F] to logits [B, K], before softmax.

        Args:
            features: what the padding holds has no influence.
            mask: [B, T] bool, True where a snippet belongs to the video.

        Raises:
            ValueError: a shape does not fit.
        """
        check_sequence(features, mask, channels=self.feature_dim)
        x = torch.where(mask[:, :, None], features, 0.0)
        if self.projection is not None and self.transformer is not None:
            x = self.transformer(self.projection(x), mask)
        logits: Tensor = self.head(masked_mean(x, mask))
        return logits


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average x [B, T, C] over the snippets where mask [B, T] is True; zero where none is."""
    total = torch.where(mask[:, :, None], x, 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def build_classifier(config: ClassifierConfig) -> Classifier:
    """Build the classifier that `config` describes, weights from torch's global generator.

    Raises:
        ValueError: the sizes of the Transformer do not fit together.
    """
    projection, transformer, channels = None, None, config.feature_dim
    if config.pooling == "transformer":
        channels = config.transformer_channels
        projection = nn.Linear(config.feature_dim, channels)
        transformer = TemporalTransformer(
            channels,
            num_layers=config.transformer_layers,
            num_heads=config.transformer_heads,
            feedforward_channels=config.feedforward_channels,
            dropout=config.transformer_dropout,
            local_heads=config.local_heads,
            local_window=config.local_window,
        )
    head: list[nn.Module] = [nn.Dropout(config.dropout)]
    if config.hidden_channels:
        head += [nn.Linear(channels, config.hidden_channels), nn.ReLU(), nn.Dropout(config.dropout)]
        channels = config.hidden_channels
    head.append(nn.Linear(channels, config.num_classes))
    return Classifier(
        feature_dim=config.feature_dim,
        projection=projection,
        transformer=transformer,
        head=nn.Sequential(*head),
    )
