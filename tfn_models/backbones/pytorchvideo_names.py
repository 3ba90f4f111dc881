"""Load the weights of pytorchvideo's SlowFast files: its tensor names, translated to ours."""

import re
from collections.abc import Mapping

from torch import Tensor

from tfn_models.backbones.slowfast import SlowFast

_PATHWAYS = {"0": "slow", "1": "fast"}
_BLOCK_PARTS = {
    "branch1_": "shortcut.",
    "branch2.conv_a": "temporal.conv",
    "branch2.norm_a": "temporal.norm",
    "branch2.conv_b": "spatial.conv",
    "branch2.norm_b": "spatial.norm",
    "branch2.conv_c": "expand.conv",
    "branch2.norm_c": "expand.norm",
}
_STEM = re.compile(r"blocks\.0\.multipathway_blocks\.([01])\.(.+)")
_FUSION = re.compile(r"blocks\.([0-3])\.multipathway_fusion\.(conv_fast_to_slow|norm)\.(.+)")
_BLOCK = re.compile(r"blocks\.([1-4])\.multipathway_blocks\.([01])\.res_blocks\.(\d+)\.(.+)")
_PROJECTION = re.compile(r"blocks\.6\.proj\.(.+)")


def from_pytorchvideo(name: str) -> str:
    """Translate one tensor's name, e.g. `blocks.6.proj.bias` to `projection.bias`.

    Raises:
        ValueError: the name is none of pytorchvideo's SlowFast.
    """
    if match := _STEM.fullmatch(name):
        return f"{_PATHWAYS[match[1]]}_stem.{match[2]}"
    if match := _FUSION.fullmatch(name):
        part = "norm" if match[2] == "norm" else "conv"
        return f"fusions.{match[1]}.{part}.{match[3]}"
    if match := _BLOCK.fullmatch(name):
        stage, pathway, block, rest = match.groups()
        for theirs, ours in _BLOCK_PARTS.items():
            if rest.startswith(theirs):
                prefix = f"{_PATHWAYS[pathway]}_stages.{int(stage) - 1}.{block}."
                return prefix + ours + rest.removeprefix(theirs)
    if match := _PROJECTION.fullmatch(name):
        return f"projection.{match[1]}"
    raise ValueError(f"{name!r} is not a tensor of pytorchvideo's SlowFast (blocks.0 to blocks.6)")


def load_pytorchvideo_weights(
    model: SlowFast, weights: Mapping[str, Tensor], *, with_projection: bool = True
) -> None:
    """Put a pytorchvideo state dict into `model`: every tensor of both must find its partner.

    Args:
        model: changed in place.
        weights: pytorchvideo's names to tensors (what its files hold under "model_state").
        with_projection: False keeps the model's own projection, for other classes than the file's.

    Raises:
        ValueError: a tensor is missing, left over, or of another shape; names the first ones.
    """
    renamed = {from_pytorchvideo(name): tensor for name, tensor in weights.items()}
    own = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    renamed = {name: tensor for name, tensor in renamed.items() if not name.endswith("_tracked")}
    if not with_projection:
        kept = {name: own[name] for name in own if name.startswith("projection.")}
        renamed |= kept
    problems = [f"{name} is missing" for name in sorted(own.keys() - renamed.keys())]
    problems += [f"{name} has no place" for name in sorted(renamed.keys() - own.keys())]
    problems += [
        f"{name} is {list(renamed[name].shape)}, the model has {list(own[name].shape)}"
        for name in own
        if name in renamed and renamed[name].shape != own[name].shape
    ]
    if problems:
        raise ValueError(
            f"the weights do not fit {model.config}: {'; '.join(problems[:5])}"
            + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        )
    for name, tensor in own.items():
        tensor.copy_(renamed[name])
