"""The names of the PyTorch port of the Inception I3D by piergiaj (`rgb_imagenet.pt`).

They are our own, but for the 1x1x1 convolution that makes the logits: its weight
[classes, features, 1, 1, 1] is the same linear map as our projection's [classes, features]. The
key list of the port's network was read, with the features that it computed, and is held by the
tests.
"""

import re

from tfn_models.backbones.checkpoints.naming import NORM_TENSORS, NamingScheme

_LAYER = re.compile(
    rf"(?:Conv3d|Mixed)_\w+(?:\.b(?:0|1a|1b|2a|2b|3b))?\.(?:conv3d|bn)\.{NORM_TENSORS}"
)
_PROJECTION = re.compile(r"logits\.conv3d\.(weight|bias)")


def _translate(name: str) -> str | None:
    if match := _PROJECTION.fullmatch(name):
        return f"projection.{match[1]}"
    return name if _LAYER.fullmatch(name) else None


PIERGIAJ = NamingScheme(title="piergiaj's", translate=_translate, head_prefixes=("logits.",))
