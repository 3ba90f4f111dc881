"""PySlowFast's names, of its SlowFast and its I3D R50, as in its `.pyth` files.

The key lists of SLOWFAST_8x8_R50, R101_50_50 and R101_101_101, of I3D_8x8_R50, and of an AVA
detector were read and are held by the tests. The detector's Non-local blocks stand inside its
backbone: no such file is read, as without them its features would be others.
"""

import re

from tfn_models.backbones.checkpoints.naming import NORM_TENSORS, NamingScheme, settle_pyslowfast

_PATHWAYS = {"0": "slow", "1": "fast"}
_BLOCK_PARTS = {
    "branch1": "shortcut.conv",
    "branch1_bn": "shortcut.norm",
    "branch2.a": "temporal.conv",
    "branch2.a_bn": "temporal.norm",
    "branch2.b": "spatial.conv",
    "branch2.b_bn": "spatial.norm",
    "branch2.c": "expand.conv",
    "branch2.c_bn": "expand.norm",
}
_LAYERS = {"conv": "conv", "conv_f2s": "conv", "bn": "norm"}

_STEM = re.compile(rf"s1\.pathway([01])_stem\.(conv|bn)\.({NORM_TENSORS})")
_FUSION = re.compile(rf"s([1-4])_fuse\.(conv_f2s|bn)\.({NORM_TENSORS})")
_BLOCK = re.compile(
    rf"s([2-5])\.pathway([01])_res(\d+)\.(branch1(?:_bn)?|branch2\.[abc](?:_bn)?)\.({NORM_TENSORS})"
)
_PROJECTION = re.compile(r"head\.projection\.(weight|bias)")


def _translate(name: str) -> str | None:
    """`s5.pathway1_res0.branch2.a_bn.weight` is a norm of the fast pathway's last stage."""
    if match := _STEM.fullmatch(name):
        return f"{_PATHWAYS[match[1]]}_stem.{_LAYERS[match[2]]}.{match[3]}"
    if match := _FUSION.fullmatch(name):
        return f"fusions.{int(match[1]) - 1}.{_LAYERS[match[2]]}.{match[3]}"
    if match := _BLOCK.fullmatch(name):
        stage, pathway, block, part, tensor = match.groups()
        place = f"{_PATHWAYS[pathway]}_stages.{int(stage) - 2}.{block}"
        return f"{place}.{_BLOCK_PARTS[part]}.{tensor}"
    if match := _PROJECTION.fullmatch(name):
        return f"projection.{match[1]}"
    return None


PYSLOWFAST = NamingScheme(
    title="PySlowFast's",
    translate=_translate,
    head_prefixes=("head.",),
    settle=settle_pyslowfast,
)
