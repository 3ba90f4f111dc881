"""What a naming scheme is: how a program calls the tensors of a backbone in its checkpoints."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tfn_models.backbones.i3d_resnet import I3dResNetConfig
from tfn_models.backbones.interface import BackboneConfig
from tfn_models.backbones.slowfast import SlowFastConfig

NORM_TENSORS = r"(?:weight|bias|running_mean|running_var)"
"""The tensors of a batch normalisation; those of a convolution are among them."""


def _as_inferred(config: BackboneConfig) -> BackboneConfig:
    return config


def settle_pyslowfast(config: BackboneConfig) -> BackboneConfig:
    """What PySlowFast's networks have in common, whether in torch, caffe2 or pytorchvideo.

    Slow frames are evenly spread from first to last, a ReLU ends each lateral connection, and a
    ResNet strides over time nowhere but in the pooling after res2, which halves the frames; the
    one called Slow, whose first stage and stem convolve no time, has none.
    """
    if isinstance(config, SlowFastConfig):
        return replace(config, slow_sampling="linspace", fusion_relu=True)
    if isinstance(config, I3dResNetConfig):
        kernels = [max(pattern) for pattern in config.temporal_kernels]
        is_slow = max(config.stem_kernel_frames, kernels[0]) == 1 < max(kernels)
        return replace(config, stem_stride_frames=1, pooled_frames=1 if is_slow else 2)
    return config


@dataclass(frozen=True)
class NamingScheme:
    """One program's names, and what these imply that no tensor shows."""

    title: str
    """Whose names they are, for messages."""
    translate: Callable[[str], str | None]
    """Our name of a tensor, from theirs; None for a name that is none of theirs.

    Networks with a single pathway are named as the slow one of a SlowFast, without the prefix
    `slow_` or with it: `read_names` finds out which it is.
    """
    head_prefixes: tuple[str, ...]
    """How the names begin of what comes after the features, which a backbone may do without."""
    bookkeeping: re.Pattern[str] = re.compile(r"(?:.+\.)?num_batches_tracked")
    """Names of what no forward pass reads: counters, the state of an optimiser."""
    is_fast_first: bool = False
    """Whether a SlowFast's projection reads the fast pathway's features before the slow one's."""
    settle: Callable[[BackboneConfig], BackboneConfig] = _as_inferred
    """What is fixed in their networks though no tensor shows it, put into an inferred config."""
