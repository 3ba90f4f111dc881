"""What every reader of a foreign format gives: the arrays of one file, by name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfn_platform.errors import DataError

MAX_ARRAY_BYTES = 4 * 1024**3
"""One video's array holds at most this much, 4 GiB: more is a damaged or hostile header."""
SHOWN_NAMES = 8
SHOWN_OF_ERROR = 300
FLOATS = "floating-point numbers of 16, 32 or 64 bits"


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of an open file.

    Attributes:
        names: of the arrays, in the file's order; a file that holds one array without a name calls
            it "".
        read: reads one of them; DataError says why it cannot be read.
    """

    names: tuple[str, ...]
    read: Callable[[str], NDArray[Any]]

    @cached_property
    def name_set(self) -> frozenset[str]:
        """The names, for looking up."""
        return frozenset(self.names)

    def listing(self) -> str:
        """Some of the names, for a message."""
        shown = ", ".join(repr(name) for name in self.names[:SHOWN_NAMES])
        more = len(self.names) - SHOWN_NAMES
        return (shown or "none") + (f" and {more} more" if more > 0 else "")


def array_file_of(arrays: Mapping[str, NDArray[Any]]) -> ArrayFile:
    """A file whose arrays are in memory already."""

    def read(name: str) -> NDArray[Any]:
        check_array(arrays[name].shape, arrays[name].dtype)
        return arrays[name]

    return ArrayFile(tuple(arrays), read)


def check_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse, before it is read, an array that cannot be the features of one video.

    Raises:
        DataError: its elements are no floating-point numbers, it would hold too much, or its shape
            is none.
    """
    if dtype.kind != "f" or dtype.itemsize > 8:
        what = "Python objects, which are not loaded" if dtype.hasobject else str(dtype)
        raise DataError(f"features must be {FLOATS}, got {what}")
    num_bytes = dtype.itemsize
    for size in shape:
        if size < 0:
            raise DataError(f"an array cannot have the shape {shape}")
        num_bytes *= size
    if num_bytes > MAX_ARRAY_BYTES:
        raise DataError(
            f"an array of shape {shape} would hold {num_bytes / 1024**3:.1f} GiB; features of one "
            f"video have at most {MAX_ARRAY_BYTES // 1024**3} GiB"
        )


@contextmanager
def readable(what_not: str) -> Iterator[None]:
    """Make a DataError of whatever a library says of a damaged file: it has dozens of kinds.

    Only for calls into a library that reads a file: anything that goes wrong inside counts as the
    file's fault.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        problem = str(error) or type(error).__name__
        raise DataError(f"{what_not}: {problem[:SHOWN_OF_ERROR]}") from error
