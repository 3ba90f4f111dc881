"""mmaction2's names, of its SlowFast and its I3D and SlowOnly R50 (`ResNet3d`), as in its `.pth`.

Seen: the modules' code of its releases 0.x and 1.x and its published configurations. Not seen: any
file. So the tests know what follows from that code, and no published weight was tried.

Four things no tensor shows:

- the slow pathway reads every `frame_ratio`-th frame from the first;
- the head reads the fast pathway's features before the slow one's, ours the other way round;
- a lateral connection ends in a ReLU only where it has a norm, which the published ones have not;
- the I3D strides over time by 2 in its stem and by 2 again in the pooling behind, and halves the
  frames after res2; the SlowOnly, whose stem convolves no time, does neither. A training that was
  configured otherwise cannot be told from its file.

Its published SlowFasts with a slow R101 and a fast R50 are no network of ours.
"""

import re
from dataclasses import replace

from tfn_models.backbones.checkpoints.naming import NORM_TENSORS, NamingScheme
from tfn_models.backbones.i3d_resnet import I3dResNetConfig
from tfn_models.backbones.interface import BackboneConfig
from tfn_models.backbones.slowfast import SlowFastConfig

_PATHWAYS = {None: "slow", "slow_path": "slow", "fast_path": "fast"}
_BLOCK_PARTS = {
    "downsample": "shortcut",
    "conv1": "temporal",
    "conv2": "spatial",
    "conv3": "expand",
}
_LAYERS = {"conv": "conv", "bn": "norm"}

_START = r"(?:backbone\.)?(?:(slow_path|fast_path)\.)?"
_END = rf"\.(conv|bn)\.({NORM_TENSORS})"
_STEM = re.compile(rf"{_START}conv1{_END}")
_FUSION = re.compile(rf"(?:backbone\.)?slow_path\.(?:conv1|layer([1-3]))_lateral{_END}")
_BLOCK = re.compile(rf"{_START}layer([1-4])\.(\d+)\.(downsample|conv[123]){_END}")
_PROJECTION = re.compile(r"cls_head\.fc_cls\.(weight|bias)")


def _translate(name: str) -> str | None:
    """`backbone.fast_path.layer4.0.downsample.conv.weight` is a fast shortcut's."""
    if match := _STEM.fullmatch(name):
        return f"{_PATHWAYS[match[1]]}_stem.{_LAYERS[match[2]]}.{match[3]}"
    if match := _FUSION.fullmatch(name):
        return f"fusions.{match[1] or 0}.{_LAYERS[match[2]]}.{match[3]}"
    if match := _BLOCK.fullmatch(name):
        pathway, stage, block, part, layer, tensor = match.groups()
        place = f"{_PATHWAYS[pathway]}_stages.{int(stage) - 1}.{block}"
        return f"{place}.{_BLOCK_PARTS[part]}.{_LAYERS[layer]}.{tensor}"
    if match := _PROJECTION.fullmatch(name):
        return f"projection.{match[1]}"
    return None


def _settle(config: BackboneConfig) -> BackboneConfig:
    if isinstance(config, SlowFastConfig):
        return replace(config, slow_sampling="stride", fusion_relu=config.fusion_norm)
    if isinstance(config, I3dResNetConfig):
        convolves_time = config.stem_kernel_frames > 1
        return replace(
            config,
            stem_stride_frames=4 if convolves_time else 1,
            pooled_frames=2 if convolves_time else 1,
        )
    return config


MMACTION2 = NamingScheme(
    title="mmaction2's",
    translate=_translate,
    head_prefixes=("cls_head.", "roi_head.", "neck."),
    is_fast_first=True,
    settle=_settle,
)
