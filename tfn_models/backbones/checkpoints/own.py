"""Our own names: what a fine-tuning of this program writes."""

import re

from tfn_models.backbones.checkpoints.naming import NORM_TENSORS, NamingScheme

_TENSOR = re.compile(
    r"(?:(?:slow_|fast_)?(?:stem|stages\.\d+\.\d+\.(?:shortcut|temporal|spatial|expand))"
    r"|fusions\.\d+)\.(?:conv|norm)\." + NORM_TENSORS + r"|projection\.(?:weight|bias)"
    r"|(?:Conv3d|Mixed)_\w+(?:\.b\d[ab]?)?\.(?:conv3d|bn)\." + NORM_TENSORS
)


def _translate(name: str) -> str | None:
    return name if _TENSOR.fullmatch(name) else None


OWN = NamingScheme(title="this program's own", translate=_translate, head_prefixes=("projection.",))
