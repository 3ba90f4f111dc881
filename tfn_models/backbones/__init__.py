"""Video backbones: networks that turn a clip of frames into a feature and class logits."""

from tfn_models.backbones.slowfast import (
    SLOWFAST_R50,
    SLOWFAST_R101,
    SLOWFAST_TINY,
    SlowFastConfig,
)

BACKBONES: dict[str, SlowFastConfig] = {
    "slowfast_r101": SLOWFAST_R101,
    "slowfast_r50": SLOWFAST_R50,
    "slowfast_tiny": SLOWFAST_TINY,
}


def pick_backbone(name: str) -> SlowFastConfig:
    """Look up a backbone's configuration by its name in a job spec.

    Raises:
        ValueError: there is no such backbone; the message lists those that exist.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")
    return BACKBONES[name]
