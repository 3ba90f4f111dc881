"""Files of torch (`.pt`, `.pth`) and pickles (`.pkl`), read without running anything in them.

Both hold a tree of dictionaries whose leaves are arrays; a leaf's name is the way to it, its keys
joined by "/". Whatever is no array of floating-point numbers is passed over. A file of either kind
is read whole: one of many videos must fit into memory.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.array_file import ArrayFile, array_file_of, readable
from tfn_platform.restricted_pickle import load_arrays
from tfn_platform.torch_file import load_torch

MAX_DEPTH = 16
MAX_FILE_BYTES = 64 * 1024**3
"""All that is made of a pickle may hold this much, 64 GiB; its tensors count three times."""


@contextmanager
def open_pt(stream: BinaryIO) -> Iterator[ArrayFile]:
    """The tensors of a file of `torch.save`, read with `weights_only`.

    Raises:
        DataError: it is no such file, or asks for something that is no tensor.
    """
    content = load_torch(stream.read())
    with readable("not a readable file of torch"):
        leaves = _leaves(content)
    yield array_file_of(leaves)


@contextmanager
def open_pkl(stream: BinaryIO) -> Iterator[ArrayFile]:
    """The arrays and tensors of a pickle.

    Raises:
        DataError: it is damaged, or names anything but arrays, tensors and plain containers.
    """
    known: dict[str, Callable[..., Any]] = {
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch.storage._load_from_bytes": _load_storage,
    }
    data = io.BytesIO(stream.read())
    content = load_arrays(data, known=known, max_array_bytes=MAX_FILE_BYTES)
    yield array_file_of(_leaves(content))


def _leaves(content: Any) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    _gather(content, "", found, depth=0)
    return found


def _gather(value: Any, name: str, found: dict[str, NDArray[Any]], *, depth: int) -> None:
    if isinstance(value, torch.Tensor):
        value = _to_numpy(value, name)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
        if name in found:
            raise DataError(f"the file holds two arrays under the name {name[:100]!r}")
        found[name] = value
    if isinstance(value, Mapping):
        if depth == MAX_DEPTH:
            raise DataError(f"the file nests more than {MAX_DEPTH} dictionaries")
        for key, inner in value.items():
            text = key.decode("latin1") if isinstance(key, bytes) else str(key)
            _gather(inner, f"{name}/{text}" if name else text, found, depth=depth + 1)


def _to_numpy(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    """A dense tensor as an array; numpy has no bfloat16, whose numbers float32 holds exactly."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise DataError(f"tensor {name[:100]!r} must be dense, got {tensor.layout}")
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: NDArray[Any] = tensor.detach().numpy()
    return array


def _load_storage(data: Any) -> NDArray[Any]:
    """The numbers behind a tensor; a pickle holds them as a small file of torch inside it."""
    if not isinstance(data, bytes | bytearray):
        raise DataError(f"a tensor's storage must be bytes, got a {type(data).__name__}")
    content = load_torch(bytes(data))
    if not isinstance(content, torch.TypedStorage):
        raise DataError(f"a tensor's storage must be one, got a {type(content).__name__}")
    storage: Any = content
    # Its public way to the bytes, `untyped()`, warns that typed storages will go; files keep them.
    flat = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
    return np.array(_to_numpy(flat, "storage"))


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> NDArray[Any]:
    """The tensor that shows `storage` in a shape; refused where it would look past its ends."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise DataError("a tensor must be made of a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise DataError("a tensor's offset, sizes and strides must be whole numbers from 0 up")
    count = 1
    for length in size:
        count *= length
    if count == 0:
        return np.empty(size, storage.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count > storage.size or last >= storage.size:
        raise DataError(f"a tensor of shape {tuple(size)} does not fit into {storage.size} numbers")
    steps = [step * storage.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)
    return np.array(view)
