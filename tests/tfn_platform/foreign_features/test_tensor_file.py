"""Tensors and arrays come out of torch's files and of pickles, and nothing runs."""

import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features import tensor_file
from tfn_platform.foreign_features.tensor_file import _rebuild_tensor, open_pkl, open_pt

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SLOW = torch.arange(24.0).reshape(1, 4, 6)


def saved(value: Any, *, is_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def read_pt(data: bytes) -> dict[str, NDArray[Any]]:
    with open_pt(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.names}


def read_pkl(data: bytes) -> dict[str, NDArray[Any]]:
    with open_pkl(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.names}


class _Runs:
    """What a hostile pickle would be made of."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_bare_tensor_has_no_name(is_zip: bool) -> None:
    found = read_pt(saved(SLOW, is_zip=is_zip))
    assert list(found) == [""]
    np.testing.assert_array_equal(found[""], SLOW.numpy())


def test_dictionaries_are_walked_and_what_is_no_array_is_passed_over() -> None:
    content = {"a": {"rgb": SLOW, "fps": 15}, "b": torch.arange(3), "note": "text", "c": SLOW[0]}
    assert list(read_pt(saved(content))) == ["a/rgb", "c"]


def test_bfloat16_becomes_float32_exactly() -> None:
    values = torch.randn(5, 3).bfloat16()
    found = read_pt(saved(values))[""]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.float().numpy())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_layout_of_tcanet(protocol: int) -> None:
    """A plain pickle of torch tensors [1, C, T]: their storages are files of torch inside it."""
    fast = torch.randn(1, 2, 6).half()
    content = {"slow_feature": SLOW, "fast_feature": fast, "feature_frames": 48}
    found = read_pkl(pickle.dumps(content, protocol=protocol))
    assert list(found) == ["slow_feature", "fast_feature"]
    np.testing.assert_array_equal(found["slow_feature"], SLOW.numpy())
    np.testing.assert_array_equal(found["fast_feature"], fast.numpy())


@pytest.mark.parametrize(
    "tensor",
    [
        SLOW[:, 1:3, ::2],
        SLOW.transpose(1, 2),
        torch.zeros(1, 0),
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(2, 5).bfloat16(),
    ],
    ids=["slice", "transposed", "empty", "float64", "bfloat16"],
)
def test_views_and_types_of_pickled_tensors(tensor: torch.Tensor) -> None:
    found = read_pkl(pickle.dumps({"x": tensor}, protocol=2))["x"]
    numbers = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    np.testing.assert_array_equal(found, numbers.numpy())


def test_arrays_of_numpy_in_a_pickle() -> None:
    content = OrderedDict([("v1", {"rgb": SLOW.numpy()}), ("v2", {"rgb": SLOW.numpy()[0]})])
    assert list(read_pkl(pickle.dumps(content))) == ["v1/rgb", "v2/rgb"]


def test_two_arrays_of_one_name_are_refused() -> None:
    array = np.zeros((2, 2))
    with pytest.raises(DataError, match="two arrays"):
        read_pkl(pickle.dumps({"a": {"b": array}, "a/b": array}))


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for read, data in (
        (read_pkl, pickle.dumps({"x": _Runs(trap)})),
        (read_pt, saved({"x": _Runs(trap)})),
        (read_pt, saved({"x": _Runs(trap)}, is_zip=False)),
    ):
        with pytest.raises(DataError, match="mkdir"):
            read(data)
    assert not trap.exists()


def test_nothing_in_a_storage_runs(tmp_path: Path) -> None:
    """A tensor's storage is a file of torch of its own: it is read as carefully."""
    trap = tmp_path / "trap"
    inner = saved(_Runs(trap), is_zip=False)

    class Tensor:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (inner,)

    with pytest.raises(DataError, match="mkdir"):
        read_pkl(pickle.dumps({"x": Tensor()}))
    assert not trap.exists()


STORAGE = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (0, (10**9, 10**9), (0, 0)),
        (0, (7,), (0,)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (2, 3), (1,)),
        (0, (2.0,), (1,)),
    ],
)
def test_a_tensor_must_lie_inside_its_storage(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    with pytest.raises(DataError):
        _rebuild_tensor(STORAGE, offset, size, stride, False, OrderedDict())


class _Storage:
    def __init__(self, numbers: torch.Tensor) -> None:
        self.data = saved(numbers._typed_storage(), is_zip=False)

    def __reduce__(self) -> Any:
        return torch.storage._load_from_bytes, (self.data,)


class _View:
    def __init__(self, storage: _Storage, count: int) -> None:
        self.arguments = (storage, 0, (count,), (1,), False, OrderedDict())

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


def test_a_small_pickle_cannot_make_many_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """One storage, taken from the memo again and again, counts each time."""
    monkeypatch.setattr(tensor_file, "MAX_FILE_BYTES", 2**22)
    storage = _Storage(torch.zeros(2**17))
    few = pickle.dumps({str(number): _View(storage, 2**17) for number in range(4)}, protocol=4)
    assert len(read_pkl(few)) == 4
    many = pickle.dumps({str(number): _View(storage, 2**17) for number in range(9)}, protocol=4)
    assert len(many) < 2**20
    with pytest.raises(DataError, match="more bytes"):
        read_pkl(many)


def test_damaged_files_are_refused() -> None:
    data = pickle.dumps({"x": SLOW}, protocol=2)
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(DataError):
            read_pkl(data[:length])
    for wrong in (b"", b"text", struct.pack("<Q", 7), saved(SLOW)[:200]):
        with pytest.raises(DataError):
            read_pt(wrong)
