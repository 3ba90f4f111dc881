"""Video-level classifier on frames: a backbone's features of several clips, then the classifier.

`model.py` classifies stored features; this trains the backbone along, end to end. With mean
pooling and a linear head a video's logits are the mean of its clips' logits, the usual test on
several views (SlowFast paper, section 4, "Inference"); several crops of a clip are several clips.

Shapes: B videos, N clips of a video, L frames, H W pixels, F features, K classes.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from tfn_models.classifier.model import Classifier


class ClipBackbone(Protocol):
    """What the classifier asks of a backbone, which must be a `torch.nn.Module`, too."""

    @property
    def feature_dim(self) -> int:
        """Length F of a clip's feature."""

    def forward_features(self, clips: Tensor) -> Tensor:
        """Map clips [n, 3, L, H, W] to features [n, F]."""


class FrameClassifier(nn.Module):
    """Features of each clip by a backbone, then what `Classifier` does with a video's features."""

    def __init__(self, backbone: ClipBackbone, classifier: Classifier) -> None:
        """Take both parts.

        Raises:
            ValueError: the backbone is no module, or its features are not what is classified.
        """
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise ValueError(f"the backbone must be a torch.nn.Module, got {type(backbone)}")
        if backbone.feature_dim != classifier.feature_dim:
            raise ValueError(
                f"the classifier must read the backbone's {backbone.feature_dim} features, "
                f"got one for {classifier.feature_dim}"
            )
        self.backbone: ClipBackbone = backbone
        self.classifier = classifier

    def forward(self, clips: Tensor, mask: Tensor) -> Tensor:
        """Map clips [B, N, 3, L, H, W] to logits [B, K], before softmax.

        Only clips where the mask is True go through the backbone: padding costs nothing, and a
        batch normalisation in training does not count it.

        Args:
            clips: normalised as the backbone wants them; what the padding holds has no influence.
            mask: [B, N] bool, True where a clip belongs to the video.

        Raises:
            ValueError: a shape does not fit, or no video has a clip.
        """
        if clips.ndim != 6 or mask.shape != clips.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                "clips must be [B, N, 3, L, H, W] and the mask bool [B, N], "
                f"got {list(clips.shape)} and {mask.dtype} {list(mask.shape)}"
            )
        chosen = mask.flatten().nonzero()[:, 0]
        if len(chosen) == 0:
            raise ValueError("at least one video must have a clip, got a mask of none")
        features = self.backbone.forward_features(clips.flatten(0, 1)[chosen])
        padded = features.new_zeros((mask.numel(), features.shape[1]))
        padded = padded.index_copy(0, chosen, features)
        logits: Tensor = self.classifier(padded.view(*mask.shape, -1), mask)
        return logits
