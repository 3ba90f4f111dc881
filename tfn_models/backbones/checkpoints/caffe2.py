"""Caffe2's names, of the SlowFast and I3D files that PySlowFast's model zoo offers as `.pkl`.

The key list of a SlowFast R101 was read and is held by the tests, without shapes; of the I3D, whose
names are those without `t_`, no file was at hand. `_riv` is called an inverse and is the running
variance itself: PySlowFast, too, reads it so. A file that a training wrote also holds what its
optimiser remembers (`_momentum`, `lr`, `model_iter`), which is passed over.
"""

import re

from tfn_models.backbones.checkpoints.naming import NamingScheme, settle_pyslowfast

_PATHWAYS = {None: "slow", "t_": "fast"}
_BLOCK_PARTS = {
    "branch1": "shortcut",
    "branch2a": "temporal",
    "branch2b": "spatial",
    "branch2c": "expand",
}
_NORM_TENSORS = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_LAYER = r"(?:w|bn_(s|b|rm|riv))"

_STEM = re.compile(r"(t_)?(?:conv1_(w)|res_conv1_bn_(s|b|rm|riv))")
_FIRST_FUSION = re.compile(rf"t_pool1_subsample_{_LAYER}")
_FUSION = re.compile(rf"t_res([2-4])_\d+_branch2c_bn_subsample_{_LAYER}")
_BLOCK = re.compile(rf"(t_)?res([2-5])_(\d+)_(branch1|branch2[abc])_{_LAYER}")
_PROJECTION = re.compile(r"pred_(w|b)")


def _translate(name: str) -> str | None:
    """`t_res5_0_branch2a_bn_riv` is a running variance of the fast pathway's last stage."""
    if match := _STEM.fullmatch(name):
        return f"{_PATHWAYS[match[1]]}_stem.{_layer(match[3])}"
    if match := _FIRST_FUSION.fullmatch(name):
        return f"fusions.0.{_layer(match[1])}"
    if match := _FUSION.fullmatch(name):
        return f"fusions.{int(match[1]) - 1}.{_layer(match[2])}"
    if match := _BLOCK.fullmatch(name):
        pathway, stage, block, part, tensor = match.groups()
        place = f"{_PATHWAYS[pathway]}_stages.{int(stage) - 2}.{block}.{_BLOCK_PARTS[part]}"
        return f"{place}.{_layer(tensor)}"
    if match := _PROJECTION.fullmatch(name):
        return "projection.weight" if match[1] == "w" else "projection.bias"
    return None


def _layer(norm_tensor: str | None) -> str:
    return f"norm.{_NORM_TENSORS[norm_tensor]}" if norm_tensor else "conv.weight"


CAFFE2 = NamingScheme(
    title="caffe2's",
    translate=_translate,
    head_prefixes=("pred_",),
    bookkeeping=re.compile(r".+_momentum|lr|model_iter"),
    settle=settle_pyslowfast,
)
