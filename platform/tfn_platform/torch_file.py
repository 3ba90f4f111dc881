"""Load a file of `torch.save` without running anything in it."""

import io
import re
from typing import Any

import torch

from tfn_platform.errors import DataError
from tfn_platform.restricted_pickle import SHOWN

SHOWN_OF_TORCH = 300
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def load_torch(data: bytes, *, saved_as: str = "") -> Any:
    """What a file of torch holds, new or old, on the CPU, read with `weights_only`.

    Args:
        data: the file's content.
        saved_as: how its tensors would have to be saved to be read, ends the advice; "" for
            however they are.

    Raises:
        DataError: it is no such file, is damaged, or asks for something that is no tensor.
    """
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Of a damaged or foreign file, torch makes errors of many kinds.
    except Exception as error:
        refused = _REFUSED.search(str(error))
        if refused is None:
            problem = str(error)[:SHOWN_OF_TORCH]
            raise DataError(f"not a readable file of torch: {problem}") from error
        raise DataError(
            f"the file asks for {refused[1][:SHOWN]}, which is no tensor and is not loaded: it "
            "could run anything. If you trust the file, save its tensors alone where it was made"
            f"{saved_as and f': {saved_as}'}"
        ) from error
