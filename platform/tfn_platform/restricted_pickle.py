"""Read pickles that hold arrays, without letting them run anything.

A pickle is a program: it may name any function of any module and call it. The reader here knows a
short list of names (numpy's arrays, scalars and dtypes, and Python's plain containers) and none of
them reaches numpy's own unpickling code, which trusts the sizes that a file claims: arrays are
built here, once their bytes are as many as their shape says. What the unpickler itself would trust
is looked through before, by `check_opcodes`. A message shows little of the file's own text: a few
bytes can name a text of gigabytes.
"""

import io
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.pickle_opcodes import check_opcodes

MAX_ARRAY_BYTES = 16 * 1024**3
"""All that is made of one file's content, arrays, bytes and sets, may hold this much, 16 GiB: a
small file can name the same content often."""
MAX_AXES = 32
SHOWN = 100
"""Characters of the file's own text that a message shows."""

# Booleans, integers, floats, complex numbers, bytes, text and Python objects, e.g. "f4" or "<U12".
_DTYPE = re.compile(r"[|=<>]?(?:\?|[biufcSU]\d+|O\d*)")
_ARRAY_CLASS = object()
_KEY_TYPES = (str, bytes, int, float, complex, np.generic)
Known = Mapping[str, Callable[..., Any]]


def load_arrays(
    file: BinaryIO, *, max_array_bytes: int = MAX_ARRAY_BYTES, known: Known | None = None
) -> object:
    """Read one pickle: numpy arrays and scalars, numbers, text, bytes and containers of these.

    Text of Python 2, which has no encoding of its own, is read as latin1, so that its arrays keep
    their bytes.

    Args:
        file: of any pickle protocol, written by Python 2 or 3 with any numpy.
        max_array_bytes: what all arrays, bytes and sets together may hold.
        known: further names that may be called, and what stands for them, ready for any arguments.

    Returns:
        What was pickled; arrays are plain, writable and of the machine's byte order. Keys of
        dictionaries and elements of sets are text, bytes or numbers.

    Raises:
        DataError: the pickle names anything else (the message says what), is damaged or nested
            deeply, or an array claims another size than it has.
    """
    data = file.read()
    try:
        check_opcodes(data)
        return _Resolver().plain(_Unpickler(io.BytesIO(data), max_array_bytes, known or {}).load())
    except DataError:
        raise
    except RecursionError:
        raise DataError("the pickle holds itself, or is nested too deeply") from None
    # A damaged pickle makes the unpickler fail in a dozen ways.
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"[:SHOWN]
        raise DataError(f"not a readable pickle: {problem}") from error


_Made = TypeVar("_Made")


class _Dtype:
    """Stands for a `numpy.dtype` of the file; its state tells the byte order."""

    __slots__ = ("value",)

    def __init__(self, code: object) -> None:
        text = _text(code)
        if not _DTYPE.fullmatch(text):
            raise DataError(
                f"arrays of dtype {text[:SHOWN]!r} are not read: numbers, text or objects are"
            )
        self.value = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take (version, byte order, subarray, names, fields, ...), as numpy writes it."""
        order = _text(state[1])
        if any(part is not None for part in state[2:5]) or order not in ("|", "=", "<", ">"):
            raise DataError("arrays of a compound dtype are not read")
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
            raise DataError(f"an array's order must be C or F, got {_text(order)[:SHOWN]!r}")
        _check_shape(shape)
        if dtype.value.hasobject:
            if not isinstance(content, list):
                raise DataError(f"objects must be a list, got a {type(content).__name__}")
            _check_size(len(content), prod(shape), shape)
            # A reference in the list and one in the array, of 8 bytes each.
            self._take_bytes(16 * len(content))
            self.objects = list(content)
            self.value = np.empty(shape, object)
            return
        data = _bytes(content)
        _check_size(len(data), prod(shape) * dtype.value.itemsize, shape)
        self._take_bytes(len(data))
        native = dtype.value.newbyteorder("=")
        flat = np.frombuffer(data, dtype.value) if dtype.value.itemsize else np.empty(0, native)
        self.value = flat.astype(native).reshape(shape, order="F" if order == "F" else "C")


def _check_shape(shape: object) -> None:
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES:
        raise DataError(f"an array's shape must be a tuple of at most {MAX_AXES} sizes")
    if not all(isinstance(size, int) and 0 <= size < 2**63 for size in shape):
        raise DataError("an array's shape must hold sizes of 0 to 2^63 - 1")


def _check_size(found: int, claimed: int, shape: tuple[int, ...]) -> None:
    if found != claimed:
        raise DataError(f"an array of shape {shape} must hold {claimed}, got {found} (bytes)")


class _Unpickler(pickle.Unpickler):
    """Knows only the names below. They are methods: a pickle cannot change what they do."""

    def __init__(self, file: BinaryIO, max_array_bytes: int, more: Known) -> None:
        super().__init__(file, encoding="latin1")
        self._bytes_left = max_array_bytes
        self._more = more

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up: in the list, or not at all."""
        known: dict[str, Any] = {
            "numpy.ndarray": _ARRAY_CLASS,
            "numpy.dtype": self._dtype,
            "numpy.core.multiarray._reconstruct": self._reconstruct,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy.core.numeric._frombuffer": self._from_buffer,
            "collections.OrderedDict": self._ordered,
            "_codecs.encode": self._encode,
            "builtins.bytes": self._encode,
            "builtins.bytearray": self._bytearray,
            "builtins.set": self._set,
            "builtins.frozenset": self._frozenset,
            "builtins.complex": self._complex,
        }
        # numpy 2 renamed its core, Python 3 its builtins.
        place = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if f"{place}.{name}" in self._more:
            return lambda *arguments: self._counted(self._more[f"{place}.{name}"](*arguments))
        if f"{place}.{name}" not in known:
            raise DataError(
                f"the pickle asks for {f'{module}.{name}'[:SHOWN]}, which is no array and is not "
                "loaded: it could run anything. If you trust the file, open it where it was made "
                "and save its arrays alone, e.g. as a dictionary of numpy arrays"
            )
        return known[f"{place}.{name}"]

    def _take_bytes(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise DataError("the pickle's arrays hold more bytes than may be read")

    def _counted(self, value: _Made) -> _Made:
        """The value, once its bytes are taken: a pickle may have it made again and again."""
        self._take_bytes(sys.getsizeof(value))
        return value

    def _dtype(self, code: object, *_: object) -> _Dtype:
        return _Dtype(code)

    def _reconstruct(self, subclass: object, *_: object) -> _Array:
        if subclass is not _ARRAY_CLASS:
            raise DataError(f"only plain arrays are read, got a {type(subclass).__name__}")
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
        _check_encoding(encoding)
        return self._counted(_bytes(text))

    def _bytearray(self, content: Any = b"", encoding: str = "latin-1") -> bytearray:
        _check_encoding(encoding)
        return self._counted(bytearray(_bytes(content)))

    def _set(self, items: Any = ()) -> set[Any]:
        return self._counted(set(_as_keys(items)))

    def _frozenset(self, items: Any = ()) -> frozenset[Any]:
        return self._counted(frozenset(_as_keys(items)))

    def _ordered(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        """Empty, or from the list of pairs that Python 2 wrote."""
        keys = _as_keys([key for key, _ in pairs])
        values = [value for _, value in pairs]
        return self._counted(OrderedDict(zip(keys, values, strict=True)))

    def _complex(self, real: float, imaginary: float) -> complex:
        return complex(real, imaginary)


def _text(value: object) -> str:
    """Text of Python 2 or 3, and of nothing else: what `str` makes of a few tuples can be huge."""
    if not isinstance(value, str | bytes):
        raise DataError(f"a name must be text, got a {type(value).__name__}")
    return value.decode("latin1") if isinstance(value, bytes) else value


def _check_encoding(encoding: object) -> None:
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"bytes must be written in latin1, got {_text(encoding)[:SHOWN]!r}")


def _as_keys(items: Iterable[Any]) -> list[Any]:
    """The items, if their hash takes no walk through others: that of nested tuples never ends."""
    found = list(items)
    wrong = [type(item).__name__ for item in found if not isinstance(item, _KEY_TYPES)]
    if wrong:
        raise DataError(f"keys must be text, bytes or numbers, got a {wrong[0].strip('_')}")
    return found


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
            return type(value)(zip(_as_keys(value), map(self.plain, value.values()), strict=True))
        if isinstance(value, set | frozenset):
            return type(value)(_as_keys(value))
        if not isinstance(value, _Array):
            return type(value)(self.plain(item) for item in value)
        if value.objects is not None:
            # Rows first, whatever the array's order was; one by one, or numpy takes arrays apart.
            flat = value.value.reshape(-1)
            for position, item in enumerate(value.objects):
                flat[position] = self.plain(item)
        return value.value
