"""Video backbones: networks that turn a clip of frames into a feature and class logits."""

from tfn_models.backbones.i3d_inception import (
    I3D_INCEPTION,
    I3dInceptionConfig,
    build_i3d_inception,
)
from tfn_models.backbones.i3d_resnet import (
    I3D_R50,
    I3D_R50_MMACTION2,
    I3dResNetConfig,
    build_i3d_resnet,
)
from tfn_models.backbones.interface import Backbone, BackboneConfig
from tfn_models.backbones.slowfast import (
    SLOWFAST_R50,
    SLOWFAST_R50_MMACTION2,
    SLOWFAST_R101,
    SLOWFAST_R101_50_50,
    SLOWFAST_R101_MMACTION2,
    SLOWFAST_TINY,
    SlowFastConfig,
    build_slowfast,
)

BACKBONES: dict[str, BackboneConfig] = {
    "slowfast_r101": SLOWFAST_R101,
    "slowfast_r101_50_50": SLOWFAST_R101_50_50,
    "slowfast_r101_mmaction2": SLOWFAST_R101_MMACTION2,
    "slowfast_r50": SLOWFAST_R50,
    "slowfast_r50_mmaction2": SLOWFAST_R50_MMACTION2,
    "slowfast_tiny": SLOWFAST_TINY,
    "i3d_r50": I3D_R50,
    "i3d_r50_mmaction2": I3D_R50_MMACTION2,
    "i3d_inception": I3D_INCEPTION,
}


def build_backbone(config: BackboneConfig) -> Backbone:
    """Build the network that `config` describes, with fresh weights.

    Raises:
        ValueError: `config` is none of this package's networks.
    """
    match config:
        case SlowFastConfig():
            return build_slowfast(config)
        case I3dResNetConfig():
            return build_i3d_resnet(config)
        case I3dInceptionConfig():
            return build_i3d_inception(config)
    raise ValueError(f"config must be a SlowFast's or an I3D's, got {type(config).__name__}")
