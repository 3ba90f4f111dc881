"""numpy's files: `.npy` of one array, `.npz` of several by name. Nothing in them is unpickled."""

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.array_file import ArrayFile, check_array, readable

_HEADERS = {
    (1, 0): numpy_format.read_array_header_1_0,
    (2, 0): numpy_format.read_array_header_2_0,
}


@contextmanager
def open_npy(stream: BinaryIO) -> Iterator[ArrayFile]:
    """The one array of a `.npy` file, called "".

    Raises:
        DataError: on reading, if it is no such file or is cut off.
    """
    yield ArrayFile(("",), lambda _: _read_array(stream))


@contextmanager
def open_npz(stream: BinaryIO) -> Iterator[ArrayFile]:
    """The arrays of a `.npz` file; each is unpacked when it is read, and only then.

    Raises:
        DataError: it is no such file, or an array in it is damaged.
    """
    with readable("not a readable npz file"):
        archive = zipfile.ZipFile(stream)
    with archive:
        members = [m.filename for m in archive.infolist() if m.filename.endswith(".npy")]
        names = tuple(member.removesuffix(".npy") for member in members)
        if len(set(names)) < len(names):
            raise DataError("the npz file holds several arrays of the same name")
        yield ArrayFile(names, lambda name: _read_member(archive, f"{name}.npy"))


def _read_member(archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    with readable(f"array {member!r} cannot be unpacked"), archive.open(member) as stream:
        values = _read_array(stream)
    return values


def _read_array(stream: Any) -> NDArray[Any]:
    """One array; its size is checked against its header before and after it is read."""
    # A header of Python 2 is read as well as any, and a damaged one is told of anyway.
    with readable("not a readable npy file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = numpy_format.read_magic(stream)
        if version not in _HEADERS:
            raise DataError(f"npy files of version {version[0]}.{version[1]} hold no features")
        shape, is_fortran, dtype = _HEADERS[version](stream)
    check_array(shape, dtype)
    num_bytes = prod(shape) * dtype.itemsize
    data = stream.read(num_bytes)
    if len(data) != num_bytes:
        raise DataError(
            f"the array is cut off: shape {shape} of {dtype} takes {num_bytes} bytes, "
            f"got {len(data)}"
        )
    with readable(f"an array cannot have the shape {shape}"):
        values: NDArray[Any] = np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")
    return values
