"""Read pickles that hold arrays, without letting them run anything.

A pickle is a program: it may name any function of any module and call it. The reader here knows a
short list of names (numpy's arrays, scalars and dtypes, and Python's plain containers) and none of
them reaches numpy's own unpickling code, which trusts the sizes that a file claims: arrays are
built here, once their bytes are as many as their shape says.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tfn_platform.errors import DataError

MAX_ARRAY_BYTES = 16 * 1024**3
"""Arrays of one file may hold this much in all, 16 GiB: a small file can name its bytes often."""

# Booleans, integers, floats, complex numbers, bytes, text and Python objects, e.g. "f4" or "<U12".
_DTYPE = re.compile(r"[|=<>]?(?:\?|[biufcSU]\d+|O\d*)")
_ARRAY_CLASS = object()


def load_arrays(file: BinaryIO, *, max_array_bytes: int = MAX_ARRAY_BYTES) -> object:
    """Read one pickle: numpy arrays and scalars, numbers, text, bytes and containers of these.

    Text of Python 2, which has no encoding of its own, is read as latin1, so that its arrays keep
    their bytes.

    Args:
        file: of any pickle protocol, written by Python 2 or 3 with any numpy.
        max_array_bytes: what all arrays together may hold.

    Returns:
        What was pickled; arrays are plain, writable and of the machine's byte order. Keys of
        dictionaries, too, are what they were.

    Raises:
        DataError: the pickle names anything else (the message says what), is damaged, or an array
            claims another size than it has.
    """
    unpickler = _Unpickler(file, max_array_bytes)
    try:
        return _Resolver().plain(unpickler.load())
    except DataError:
        raise
    except RecursionError:
        raise DataError("the pickle holds itself, or is nested too deeply") from None
    # A damaged pickle makes the unpickler fail in a dozen ways.
    except Exception as error:
        raise DataError(f"not a readable pickle: {type(error).__name__}: {error}") from error


class _Dtype:
    """Stands for a `numpy.dtype` of the file; its state tells the byte order."""

    __slots__ = ("value",)

    def __init__(self, code: object) -> None:
        text = _text(code)
        if not _DTYPE.fullmatch(text):
            raise DataError(f"arrays of dtype {text!r} are not read: numbers, text or objects are")
        self.value = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take (version, byte order, subarray, names, fields, ...), as numpy writes it."""
        order = _text(state[1])
        if any(part is not None for part in state[2:5]) or order not in ("|", "=", "<", ">"):
            raise DataError(f"arrays of a compound dtype are not read, got {state!r}")
        self.value = self.value.newbyteorder(">" if order == ">" else "<" if order == "<" else "=")


class _Array:
    """Stands for a `numpy.ndarray` of the file, until the whole pickle is read."""

    __slots__ = ("_take_bytes", "value", "objects")

    def __init__(self, take_bytes: Callable[[int], None]) -> None:
        self._take_bytes = take_bytes
        self.value: NDArray[Any] = np.empty(0)
        self.objects: list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take (version, shape, dtype, whether columns come first, content), as numpy writes it."""
        _, shape, dtype, is_fortran, content = state
        self.fill(content, dtype, shape, order="F" if is_fortran else "C")

    def fill(self, content: Any, dtype: _Dtype, shape: tuple[int, ...], *, order: str) -> None:
        """Build the array from the bytes of its elements, or from a list of objects."""
        if order not in ("C", "F"):
            raise DataError(f"an array's order must be C or F, got {order!r}")
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise DataError(f"an array's shape must hold sizes, got {shape}")
        if dtype.value.hasobject:
            self.objects = list(content)
            _check_size(len(self.objects), prod(shape), shape)
            self.value = np.empty(shape, object)
            return
        data = _bytes(content)
        _check_size(len(data), prod(shape) * dtype.value.itemsize, shape)
        self._take_bytes(len(data))
        native = dtype.value.newbyteorder("=")
        flat = np.frombuffer(data, dtype.value) if dtype.value.itemsize else np.empty(0, native)
        self.value = flat.astype(native).reshape(shape, order="F" if order == "F" else "C")


def _check_size(found: int, claimed: int, shape: tuple[int, ...]) -> None:
    if found != claimed:
        raise DataError(f"an array of shape {shape} must hold {claimed}, got {found} (bytes)")


class _Unpickler(pickle.Unpickler):
    """Knows only the names below. They are methods: a pickle cannot change what they do."""

    def __init__(self, file: BinaryIO, max_array_bytes: int) -> None:
        super().__init__(file, encoding="latin1")
        self._bytes_left = max_array_bytes

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up: in the list, or not at all."""
        known: dict[str, Any] = {
            "numpy.ndarray": _ARRAY_CLASS,
            "numpy.dtype": self._dtype,
            "numpy.core.multiarray._reconstruct": self._reconstruct,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy.core.numeric._frombuffer": self._from_buffer,
            "collections.OrderedDict": OrderedDict,
            "_codecs.encode": self._encode,
            "builtins.bytes": self._encode,
            "builtins.bytearray": self._bytearray,
            "builtins.set": self._set,
            "builtins.frozenset": self._frozenset,
            "builtins.complex": self._complex,
        }
        # numpy 2 renamed its core, Python 3 its builtins.
        place = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if f"{place}.{name}" not in known:
            raise DataError(
                f"the pickle asks for {module}.{name}, which is no array and is not loaded: it "
                "could run anything. If you trust the file, open it where it was made and save "
                "its arrays alone, e.g. as a dictionary of numpy arrays"
            )
        return known[f"{place}.{name}"]

    def _take_bytes(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise DataError("the pickle's arrays hold more bytes than may be read")

    def _dtype(self, code: object, *_: object) -> _Dtype:
        return _Dtype(code)

    def _reconstruct(self, subclass: object, *_: object) -> _Array:
        if subclass is not _ARRAY_CLASS:
            raise DataError(f"only plain arrays are read, got a {subclass!r}")
        return _Array(self._take_bytes)

    def _from_buffer(
        self, content: Any, dtype: _Dtype, shape: tuple[int, ...], order: str, *_: object
    ) -> _Array:
        array = _Array(self._take_bytes)
        array.fill(content, dtype, shape, order=order)
        return array

    def _scalar(self, dtype: _Dtype, content: Any) -> Any:
        if dtype.value.hasobject:
            raise DataError("a scalar must be a number or text, got an object")
        array = _Array(self._take_bytes)
        array.fill(content, dtype, (), order="C")
        return array.value[()]

    def _encode(self, text: str = "", encoding: str = "latin1") -> bytes:
        """How protocols before 3 write bytes."""
        if encoding != "latin1":
            raise DataError(f"bytes must be written in latin1, got {encoding!r}")
        return _bytes(text)

    def _bytearray(self, content: Any = b"", encoding: str = "latin-1") -> bytearray:
        if encoding != "latin-1":
            raise DataError(f"bytes must be written in latin1, got {encoding!r}")
        return bytearray(_bytes(content))

    def _set(self, items: Any = ()) -> set[Any]:
        return set(items)

    def _frozenset(self, items: Any = ()) -> frozenset[Any]:
        return frozenset(items)

    def _complex(self, real: float, imaginary: float) -> complex:
        return complex(real, imaginary)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _bytes(content: Any) -> bytes:
    """The bytes of what Python 2 wrote as text and Python 3 as bytes; never of a bare number."""
    if isinstance(content, str):
        return content.encode("latin1")
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    raise DataError(f"an array's content must be bytes, got a {type(content).__name__}")


class _Resolver:
    """Puts arrays and dtypes in the place of what stood for them; what is shared stays shared."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def plain(self, value: Any) -> Any:
        """The value as its writer had it."""
        if isinstance(value, _Dtype):
            return value.value
        if not isinstance(value, _Array | dict | list | tuple | set | frozenset):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = self._resolve(value)
        return self._done[id(value)]

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, dict):
            pairs = ((self.plain(key), self.plain(item)) for key, item in value.items())
            return type(value)(pairs)
        if not isinstance(value, _Array):
            return type(value)(self.plain(item) for item in value)
        if value.objects is not None:
            # Rows first, whatever the array's order was; one by one, or numpy takes arrays apart.
            flat = value.value.reshape(-1)
            for position, item in enumerate(value.objects):
                flat[position] = self.plain(item)
        return value.value
