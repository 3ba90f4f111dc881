"""Read the tensors of a checkpoint that another program wrote, without running anything in it."""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tfn_platform.errors import DataError
from tfn_platform.restricted_pickle import SHOWN, load_arrays
from tfn_platform.store import Store, bytes_hash
from tfn_platform.torch_file import load_torch

STATE_KEYS = ("model_state", "state_dict", "model_state_dict", "model", "blobs")
"""Where files keep their tensors: pytorchvideo and PySlowFast, mmaction2, others, caffe2. In other
files they are the whole content."""
_ZIP = b"PK\x03\x04"
# torch before 1.6 wrote a row of pickles, the first of which is this number.
_OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_SAVED_AS = f"a plain dictionary of them, or one under {' or '.join(STATE_KEYS)}"


def read_foreign_weights(
    store: Store, relative: str, *, content_hash: str | None = None
) -> dict[str, torch.Tensor]:
    """Read a file of torch (`.pt`, `.pth`, `.pyth`) or a pickle of arrays (`.pkl` of caffe2).

    Which of them it is, its first bytes tell. torch's are read with `weights_only`, pickles with
    `load_arrays`: neither lets the file call anything.

    Args:
        store: the file's folder.
        relative: its name there.
        content_hash: what `bytes_hash` said of its content before; None for any content.

    Returns:
        Their names -> tensors, dense and on the CPU, of floating-point numbers of 16 to 64 bits or
        integers; whatever else the file holds (an optimiser, an epoch) is passed over.

    Raises:
        DataError: there is no such file, its content is another one than before, it is of neither
            kind, asks for something that is no tensor, or holds no state dict of such tensors.
    """
    uri = store.uri(relative)
    try:
        data = store.read_bytes(relative)
    except OSError as error:
        raise DataError(f"{uri}: cannot be read: {error}") from error
    if content_hash not in (None, bytes_hash(data)):
        raise DataError(
            f"{uri}: its content has changed since the run was planned ({content_hash}, now "
            f"{bytes_hash(data)}); run again, and leave the file as it is meanwhile"
        )
    try:
        is_torch = data.startswith((_ZIP, _OLD_TORCH))
        if is_torch:
            return _state_of(load_torch(data, saved_as=_SAVED_AS))
        return _state_of(load_arrays(io.BytesIO(data)))
    except DataError as error:
        raise DataError(f"{uri}: {error}") from error


def _state_of(content: Any) -> dict[str, torch.Tensor]:
    """The state dict inside a file's content."""
    if not isinstance(content, Mapping):
        raise DataError(f"must hold a dictionary of tensors, got a {type(content).__name__}")
    inner = [content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)]
    state = inner[0] if inner else content
    others = [str(name) for name, value in state.items() if not _is_numeric(value)]
    if others or not state:
        names = ", ".join(repr(name) for name in others[:5]) or "nothing"
        raise DataError(
            f"must hold tensors by name, itself or under one of {', '.join(STATE_KEYS)}; what is "
            f"no tensor: {names}"
        )
    return {str(name): _tensor(value, str(name)) for name, value in state.items()}


def _is_numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf"
    return isinstance(value, torch.Tensor | bool | int | float)


def _tensor(value: Any, name: str) -> torch.Tensor:
    """A dense tensor on the CPU; DataError for numbers that no network of ours could read."""
    tensor = value if isinstance(value, torch.Tensor) else _from_numpy(value, name)
    is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not is_dense or tensor.dtype not in (*_FLOATS, *_INTEGERS):
        raise DataError(
            f"{name[:SHOWN]} must be a dense tensor of floating-point numbers of 16 to 64 bits or "
            f"of integers, got {tensor.dtype}, {tensor.layout}, on {tensor.device.type}"
        )
    return tensor.detach()


def _from_numpy(value: Any, name: str) -> torch.Tensor:
    array = np.asarray(value)
    # torch has no unsigned numbers of more than 8 bits in all its versions.
    signed = array.astype(np.int64) if array.dtype.kind in "iu" else array
    is_wrapped = array.dtype.kind == "u" and bool((signed < 0).any())
    if array.dtype.kind == "O" or array.dtype.itemsize > 8 or is_wrapped:
        raise DataError(f"{name[:SHOWN]} holds numbers that torch has not: {array.dtype}")
    return torch.from_numpy(signed)
