"""Arrays come back as they were, and nothing else in a pickle does anything at all."""

import codecs
import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfn_platform.errors import DataError
from tfn_platform.restricted_pickle import load_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def loaded(data: bytes, **limits: int) -> Any:
    return load_arrays(io.BytesIO(data), **limits)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype.newbyteorder("=")
        assert found.shape == expected.shape
        assert found.flags.writeable
        if expected.dtype.hasobject:
            for one, other in zip(found.reshape(-1), expected.reshape(-1), strict=True):
                assert_same(one, other)
        else:
            np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def ragged() -> np.ndarray[Any, Any]:
    array = np.empty((2, 2), object)
    array[0, 0], array[0, 1] = np.arange(3), {"a": np.ones(2)}
    array[1, 0], array[1, 1] = "text", None
    return array


VALUES: dict[str, Any] = {
    "numbers": {"a": 1, "b": 2.5, "c": None, "d": True, "e": 3 + 4j, "f": 2**70},
    "text and bytes": ["ä", "\u2713", b"\x00\xff", bytearray(b"xy"), b"", ""],
    "containers": OrderedDict([("z", (1, {2}, frozenset({3}))), ("a", [[], {}, ()])]),
    "float32": {"x": np.arange(12, dtype=np.float32).reshape(3, 4)},
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">f8"),
    "strided": np.arange(20)[::3],
    "empty": np.zeros((0, 4), np.float32),
    "no axis": np.array(3.5),
    "booleans": np.array([True, False]),
    "text": np.array(["a", "longer"]),
    "bytes": np.array([b"ab", b"c"]),
    "half": np.arange(4, dtype=np.float16),
    "scalar": {"mean": np.float32(0.5), "count": np.int64(7)},
    "dtype": [np.dtype("f4"), np.dtype(">i8")],
    "objects": ragged(),
    "objects, columns first": np.asfortranarray(ragged()),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", VALUES)
def test_what_was_pickled_comes_back(name: str, protocol: int) -> None:
    assert_same(loaded(pickle.dumps(VALUES[name], protocol)), VALUES[name])


@given(
    hnp.arrays(
        st.one_of(hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.sampled_from(PROTOCOLS),
)
def test_any_array_of_numbers_comes_back(array: np.ndarray[Any, Any], protocol: int) -> None:
    assert_same(loaded(pickle.dumps([array], protocol)), [array])


def test_what_is_shared_stays_shared() -> None:
    array = np.arange(3)
    first, second = loaded(pickle.dumps([array, array]))
    assert first is second


def python2_array(values: list[float]) -> bytes:
    """{"blobs": {"w": float32 array}} as Python 2 and numpy 1 wrote it in protocol 2, by hand."""

    def text(value: bytes) -> bytes:  # SHORT_BINSTRING: bytes without an encoding
        return b"U" + bytes([len(value)]) + value

    content = struct.pack(f"<{len(values)}f", *values)
    dtype = b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R"  # dtype("f4", 0, 1)
    order = b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    # _reconstruct(ndarray, (0,), "b"), then its state: 1, shape, dtype, False, content.
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    state = b"(K\x01K" + bytes([len(values)]) + b"\x85" + dtype + order + b"\x89" + text(content)
    array = made + b"\x87R" + state + b"tb"
    return b"\x80\x02}" + text(b"blobs") + b"}" + text(b"w") + array + b"ss."


def test_python_2_wrote_bytes_as_latin1() -> None:
    """-1.5e-30 and 200 have bytes above 127, which are no ASCII and no UTF-8."""
    values = [1.0, -1.5e-30, 200.0]
    found = loaded(python2_array(values))
    assert_same(found, {"blobs": {"w": np.array(values, np.float32)}})


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    data = pickle.dumps([np.ones(3), Malicious(os.system, f"touch {victim}")], protocol)
    with pytest.raises(DataError, match=rf"asks for {os.name}\.system.*could run anything"):
        loaded(data)
    assert not victim.exists()
    pickle.loads(data)
    assert victim.exists()


GLOBALS = {
    "builtins.eval": b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    "builtins.bytes.fromhex": b"\x80\x04\x8c\x08builtins\x8c\x0dbytes.fromhex\x93.",
    "numpy.load": b"\x80\x02cnumpy\nload\n.",
    "numpy.matrix": b"\x80\x02cnumpy\nmatrix\n.",
    "numpy.random": pickle.dumps(np.random.RandomState(0), 2),
    "copy_reg": b"ccopy_reg\n_reconstructor\n.",
    "os.path": b"(S'ls'\nios\nsystem\n.",
}


@pytest.mark.parametrize("name", GLOBALS)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="the pickle asks for"):
        loaded(GLOBALS[name])


def array_state(shape: Any, content: Any, code: str = "f4") -> bytes:
    """An array whose state says what we like."""
    dtype = np.dtype(code)

    class Forged:
        def __reduce__(self) -> Any:
            make, arguments, _ = np.zeros(1).__reduce__()
            return make, arguments, (1, shape, dtype, False, content)

    return pickle.dumps(Forged(), 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_state((10**9,), b"1234"), "must hold 4000000000, got 4"),
        (array_state((1,), b"12345678"), "must hold 4, got 8"),
        (array_state((-1,), b"1234"), "must hold sizes"),
        (array_state((2,), [1, 2]), "must be bytes, got a list"),
        (array_state((2,), 10**12), "must be bytes, got a int"),
        (array_state((3,), [1], "O"), "must hold 3, got 1"),
        (array_state((1,), b"12345678", "f4,i4"), "dtype 'V8' are not read"),
        (array_state((1,), b"12345678", "M8[s]"), "dtype 'M8' are not read"),
        (array_state((10**5000, 0), b""), "must hold sizes of 0 to"),
        (array_state((0,) * 40, b""), "at most 32 sizes"),
        (array_state((1,), "\u2713"), "not a readable pickle: UnicodeEncodeError"),
        (pickle.dumps(Malicious(bytes, 10**12), 4), "must be bytes, got a int"),
        (pickle.dumps(Malicious(bytearray, 10**12), 4), "must be bytes, got a int"),
        (pickle.dumps(np.arange(3))[:-20], "not a readable pickle"),
        (b"", "not a readable pickle: EOFError"),
        (b"not a pickle", "not a readable pickle"),
    ],
)
def test_damaged_and_forged_arrays(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loaded(data)


def test_bytes_that_many_arrays_name() -> None:
    """One content of a kilobyte, a hundred arrays: each is a copy."""
    array = np.zeros(1024, np.uint8)
    make, arguments, _ = array.__reduce__()
    state = (1, (1024,), array.dtype, False, array.tobytes())
    data = pickle.dumps([Made((make, arguments, state)) for _ in range(100)])
    assert len(data) < 20_000
    with pytest.raises(DataError, match="more bytes than may be read"):
        loaded(data, max_array_bytes=50 * 1024)
    assert len(loaded(data, max_array_bytes=100 * 1024)) == 100


class Made:
    """Whatever a pickle may say that it was made by."""

    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


REPEATED = {
    "objects": (np.empty(0, object).__reduce__()[0], np.empty(0, object).__reduce__()[1]),
    "bytearray": (bytearray, (b"x" * 2000,)),
    "bytes": (codecs.encode, ("x" * 2000, "latin1")),
    "set": (set, (list(range(200)),)),
    "frozenset": (frozenset, (list(range(200)),)),
    "dictionary": (OrderedDict, ([(number, 0) for number in range(200)],)),
}


@pytest.mark.parametrize("name", REPEATED)
def test_whatever_is_made_again_and_again_is_counted(name: str) -> None:
    """Only numbers of arrays were: 200 bytes of a file could make a set of megabytes each."""
    call = REPEATED[name]
    state = ((1, (200,), np.dtype(object), False, [None] * 200),) if name == "objects" else ()
    data = pickle.dumps([Made((*call, *state)) for _ in range(100)], 4)
    assert len(data) < 10_000
    with pytest.raises(DataError, match="more bytes than may be read"):
        loaded(data, max_array_bytes=100_000)
    assert len(loaded(data, max_array_bytes=10_000_000)) == 100


def doubled(levels: int) -> Any:
    value: Any = ("bomb",)
    for _ in range(levels):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    "name",
    ["dtype", "order", "encoding", "subclass", "shape", "byte order", "set", "ordered", "text"],
)
def test_a_small_file_makes_a_small_message(name: str) -> None:
    """61 bytes of tuples in tuples once made a message of 6 MB; 40 levels would never end."""
    bomb = doubled(40)
    make, arguments, state = np.zeros(1).__reduce__()
    dtype_call, dtype_arguments, _ = np.dtype("f4").__reduce__()
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    calls: dict[str, tuple[Any, ...]] = {
        "dtype": (np.dtype, (bomb,)),
        "order": (from_buffer, (b"1234", np.dtype("f4"), (1,), bomb)),
        "encoding": (codecs.encode, ("x", bomb)),
        "subclass": (make, (bomb, (0,), b"b")),
        "shape": (make, arguments, (1, (bomb,), np.dtype("f4"), False, b"")),
        "byte order": (dtype_call, dtype_arguments, (3, bomb, None, None, None, -1, -1, 0)),
        "set": (set, ([bomb],)),
        "ordered": (OrderedDict, ([(bomb, 1)],)),
        "text": (np.dtype, ("f4" * 10_000,)),
    }
    with pytest.raises(DataError) as caught:
        loaded(pickle.dumps(Made(calls[name]), 4))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", [(1, 2), (), np.dtype("f4"), frozenset({1}), None])
def test_keys_are_text_or_numbers(key: Any) -> None:
    for value in ({key: 1}, OrderedDict([(key, 1)])):
        with pytest.raises(DataError, match="keys must be text, bytes or numbers, got a"):
            loaded(pickle.dumps(value))


def test_a_list_in_itself() -> None:
    inner: list[Any] = []
    inner.append(inner)
    with pytest.raises(DataError, match="holds itself"):
        loaded(pickle.dumps(inner))


def test_lists_of_lists_of_the_same_list_stay_small() -> None:
    value: list[Any] = [1.0]
    for _ in range(100):
        value = [value, value]
    found = loaded(pickle.dumps(value))
    for _ in range(100):
        assert found[0] is found[1]
        found = found[0]
    assert found == [1.0]
