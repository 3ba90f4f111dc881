"""Checkpoints of other programs: their names of tensors, and the network that the tensors show."""

from collections.abc import Collection

from tfn_models.backbones.checkpoints.caffe2 import CAFFE2
from tfn_models.backbones.checkpoints.mmaction2 import MMACTION2
from tfn_models.backbones.checkpoints.naming import NamingScheme
from tfn_models.backbones.checkpoints.own import OWN
from tfn_models.backbones.checkpoints.piergiaj import PIERGIAJ
from tfn_models.backbones.checkpoints.pyslowfast import PYSLOWFAST
from tfn_models.backbones.checkpoints.pytorchvideo import PYTORCHVIDEO

SCHEMES: dict[str, NamingScheme] = {
    "own": OWN,
    "pytorchvideo": PYTORCHVIDEO,
    "pyslowfast": PYSLOWFAST,
    "caffe2": CAFFE2,
    "mmaction2": MMACTION2,
    "piergiaj": PIERGIAJ,
}


def pick_scheme(names: Collection[str]) -> str:
    """Find out whose names these are: the scheme that knows most of them.

    Returns:
        A key of `SCHEMES`.

    Raises:
        ValueError: no scheme knows any of the names; lists the schemes and the first names.
    """
    known = {
        key: sum(scheme.translate(name) is not None for name in names)
        for key, scheme in SCHEMES.items()
    }
    best = max(known, key=lambda key: known[key])
    if known[best] == 0:
        first = ", ".join(repr(name) for name in list(names)[:5])
        raise ValueError(
            f"tensors must have the names of {', '.join(SCHEMES)}, got {len(names)} others: "
            f"{first or 'none at all'}"
        )
    return best
