"""pytorchvideo's names, of its SlowFast and its I3D R50, as in its model zoo (`.pyth`).

The key lists of its published SlowFast R50, R101 and 16x8 R101_50_50 and I3D R50 were read and are
held by the tests; so are features that pytorchvideo computed.
"""

import re

from tfn_models.backbones.checkpoints.naming import NORM_TENSORS, NamingScheme, settle_pyslowfast

_PATHWAYS = {None: "slow", "0": "slow", "1": "fast"}
_BLOCK_PARTS = {
    "branch1_conv": "shortcut.conv",
    "branch1_norm": "shortcut.norm",
    "branch2.conv_a": "temporal.conv",
    "branch2.norm_a": "temporal.norm",
    "branch2.conv_b": "spatial.conv",
    "branch2.norm_b": "spatial.norm",
    "branch2.conv_c": "expand.conv",
    "branch2.norm_c": "expand.norm",
}
# blocks.2 of the I3D is its pooling over time.
_STAGES_OF_I3D = {"1": 0, "3": 1, "4": 2, "5": 3}

_STEM = re.compile(rf"blocks\.0\.(?:multipathway_blocks\.([01])\.)?((?:conv|norm)\.{NORM_TENSORS})")
_FUSION = re.compile(
    rf"blocks\.([0-3])\.multipathway_fusion\.(conv_fast_to_slow|norm)\.({NORM_TENSORS})"
)
_BLOCK = re.compile(
    r"blocks\.([1-5])\.(?:multipathway_blocks\.([01])\.)?res_blocks\.(\d+)\."
    rf"((?:branch1_|branch2\.)\w+)\.({NORM_TENSORS})"
)
_PROJECTION = re.compile(r"blocks\.6\.proj\.(weight|bias)")


def _translate(name: str) -> str | None:
    """`blocks.4.multipathway_blocks.1.res_blocks.0.branch1_conv.weight` is a fast shortcut's."""
    if match := _STEM.fullmatch(name):
        return f"{_PATHWAYS[match[1]]}_stem.{match[2]}"
    if match := _FUSION.fullmatch(name):
        part = "norm" if match[2] == "norm" else "conv"
        return f"fusions.{match[1]}.{part}.{match[3]}"
    if match := _BLOCK.fullmatch(name):
        return _translate_block(*match.groups())
    if match := _PROJECTION.fullmatch(name):
        return f"projection.{match[1]}"
    return None


def _translate_block(
    place: str, pathway: str | None, block: str, part: str, tensor: str
) -> str | None:
    stage = _STAGES_OF_I3D.get(place) if pathway is None else int(place) - 1
    if part not in _BLOCK_PARTS or stage is None or stage > 3:
        return None
    return f"{_PATHWAYS[pathway]}_stages.{stage}.{block}.{_BLOCK_PARTS[part]}.{tensor}"


PYTORCHVIDEO = NamingScheme(
    title="pytorchvideo's",
    translate=_translate,
    head_prefixes=("blocks.6.",),
    settle=settle_pyslowfast,
)
