"""What would harm the unpickler is seen before it starts; whatever is honest passes."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn_platform.errors import DataError
from tfn_platform.pickle_opcodes import MAX_DEPTH, check_opcodes

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.text() | st.integers() | st.binary(), inner),
        st.sets(st.integers() | st.text()),
        st.frozensets(st.binary()),
    ),
    max_leaves=20,
)


@given(VALUES, st.sampled_from(PROTOCOLS))
def test_what_python_pickles_passes(value: Any, protocol: int) -> None:
    check_opcodes(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_pass(protocol: int) -> None:
    arrays = {f"w{number}": np.arange(number) for number in range(300)}
    check_opcodes(
        pickle.dumps({"blobs": arrays, "objects": np.array([None, [1]], object)}, protocol)
    )


def test_text_of_python_2_is_no_ascii() -> None:
    """In its protocol 0, with a quote, a line break and bytes above 127."""
    check_opcodes(b"(dp0\nS'a\\xff\\n'\np1\nS'\xe4'\np2\ns.")


def nested(depth: int, kind: str) -> bytes:
    """Lists, tuples or dictionaries inside one another, which `pickle` could not write itself."""
    made = {
        "list": b"]" * depth + b"a" * (depth - 1),
        "tuple": b")" + b"\x85" * (depth - 1),
        "marked tuple": b"(" * depth + b"t" * depth,
        "dictionary": b"}" + b"K\x00}" * (depth - 1) + b"s" * (depth - 1),
        "set": b"(" * depth + b"\x91" * depth,
        "state": b")" * depth + b"b" * (depth - 1),
    }
    return b"\x80\x04" + made[kind] + b"."


@pytest.mark.parametrize("kind", ["list", "tuple", "marked tuple", "dictionary", "set", "state"])
def test_deep_nesting_is_refused(kind: str) -> None:
    check_opcodes(nested(MAX_DEPTH, kind))
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(DataError, match="nested too deeply: more than 200"):
            check_opcodes(nested(depth, kind))


def test_a_long_list_is_not_deep() -> None:
    """Each item is put in by an instruction of its own."""
    check_opcodes(b"\x80\x02]" + b"K\x01a" * 5000 + b".")
    check_opcodes(b"\x80\x02}" + b"K\x01]s" * 5000 + b".")


@pytest.mark.parametrize(
    "ending",
    [b"K\x01s", b"K\x01u"],
)
def test_a_tuple_is_no_key(ending: bytes) -> None:
    """The hash of one 100,000 tuples deep ended the process; of (t, t) 60 deep, it never ends."""
    start = b"\x80\x04}(" if b"u" in ending else b"\x80\x04}"
    deep = b"K\x01\x85" + b"2\x86" * 60
    with pytest.raises(DataError, match="keys must be .* got a tuple"):
        check_opcodes(start + deep + ending + b".")


@pytest.mark.parametrize(
    "data",
    [
        b"(K\x01\x85K\x01d.",  # DICT
        b"\x80\x04\x8f(K\x01\x85\x90.",  # ADDITEMS
        b"\x80\x04(K\x01\x85\x91.",  # FROZENSET
        b"\x80\x04}K\x01\x85q\x000h\x00K\x01s.",  # From the memo
    ],
)
def test_a_tuple_is_no_key_in_any_spelling(data: bytes) -> None:
    with pytest.raises(DataError, match="got a tuple"):
        check_opcodes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\x00\x00\x00\x80.",
        b"\x80\x02]r\xff\x00\x00\x00.",
        b"]p2147483648\n.",
        b"]p-1\n.",
        b"\x80\x02]q\xff.",
    ],
)
def test_memo_numbers_that_would_reserve_room(data: bytes) -> None:
    """2^31 makes Python's unpickler ask for 32 GiB."""
    with pytest.raises(DataError, match="numbers an object .* after [0-9] instructions"):
        check_opcodes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"]",
        b"a.",
        b"(a.",
        b"]](s.",
        b"h\x00.",
        b"t.",
        b"\x01.",
        b"0.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8e" + b"\xff" * 8 + b"abc.",
    ],
)
def test_damaged_pickles_end_in_an_error(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError, KeyError, EOFError)):
        check_opcodes(data)


@given(st.binary(max_size=60))
def test_any_bytes_end(data: bytes) -> None:
    try:
        check_opcodes(data)
    except (DataError, ValueError, IndexError, KeyError, EOFError, OverflowError):
        pass
