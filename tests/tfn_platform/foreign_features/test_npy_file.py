"""numpy's files come back as numpy has them; what is cut off or pickled is refused."""

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.npy_file import open_npy, open_npz

RNG = np.random.default_rng(0)
ARRAYS: dict[str, NDArray[Any]] = {
    "float32": RNG.normal(size=(5, 3)).astype(np.float32),
    "float16": RNG.normal(size=(5, 3)).astype(np.float16),
    "float64": RNG.normal(size=(5, 3)),
    "big endian": RNG.normal(size=(5, 3)).astype(">f4"),
    "columns first": np.asfortranarray(RNG.normal(size=(5, 3))),
    "one row": RNG.normal(size=(1, 3)),
    "more axes": RNG.normal(size=(1, 3, 7, 1)),
    "empty": np.empty((0, 3)),
}


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def read_npy(data: bytes) -> NDArray[Any]:
    with open_npy(io.BytesIO(data)) as file:
        assert file.names == ("",)
        return file.read("")


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_npy_is_read_as_numpy_reads_it(array: NDArray[Any]) -> None:
    found = read_npy(npy(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_version_2_is_read() -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, ARRAYS["float32"], version=(2, 0))
    np.testing.assert_array_equal(read_npy(stream.getvalue()), ARRAYS["float32"])


def test_every_cut_of_npy_is_refused() -> None:
    data = npy(ARRAYS["float32"])
    for length in range(len(data)):
        with pytest.raises(DataError):
            read_npy(data[:length])


def test_objects_are_not_unpickled() -> None:
    with pytest.raises(DataError, match="Python objects"):
        read_npy(npy(np.array([{"a": 1}], dtype=object)))


def test_a_header_that_claims_too_much_is_refused_before_reading() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4), }\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with pytest.raises(DataError, match="GiB"):
        read_npy(data)


def with_header(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1180591620717411303424), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + 70 * "1, " + "), }",
        "{'descr': [()], 'fortran_order': False, 'shape': (1, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), '''",
    ],
    ids=["negative", "too long for numpy", "many axes", "descr", "open bracket", "open text"],
)
def test_headers_that_numpy_does_not_expect(header: str) -> None:
    """They ended in errors of numpy, of the tokenizer, or in an array of another shape."""
    with pytest.raises(DataError):
        read_npy(with_header(header) + bytes(12))


def test_a_header_of_python_2_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 3L), }"
    assert read_npy(with_header(header) + bytes(12)).shape == (1, 3)
    assert not recwarn


def test_text_is_no_npy() -> None:
    with pytest.raises(DataError, match="not a readable npy"):
        read_npy(b"<html>404</html>")


def test_npz_gives_each_array_by_name() -> None:
    data = npz(**{"a/rgb": ARRAYS["float32"], "b": ARRAYS["float64"]})
    with open_npz(io.BytesIO(data)) as file:
        assert file.names == ("a/rgb", "b")
        for name, key in (("b", "float64"), ("a/rgb", "float32"), ("b", "float64")):
            np.testing.assert_array_equal(file.read(name), ARRAYS[key])


def test_a_damaged_member_is_refused_and_the_others_are_read() -> None:
    stream = io.BytesIO()
    np.savez(stream, a=ARRAYS["float64"], b=ARRAYS["float32"])
    data = bytearray(stream.getvalue())
    data[data.index(ARRAYS["float64"].tobytes()[:16])] ^= 0xFF
    with open_npz(io.BytesIO(bytes(data))) as file:
        with pytest.raises(DataError, match="a.npy"):
            file.read("a")
        np.testing.assert_array_equal(file.read("b"), ARRAYS["float32"])


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_of_other_packings_is_refused(packing: int) -> None:
    """That of lzma has an error of its own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        archive.writestr("a.npy", npy(RNG.normal(size=(50, 3))))
    data = bytearray(stream.getvalue())
    data[100:400] = bytes(300)
    with open_npz(io.BytesIO(bytes(data))) as file, pytest.raises(DataError):
        file.read("a")


def test_two_members_of_one_name_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("a.npy", npy(ARRAYS["float32"]))
    with pytest.raises(DataError, match="same name"), open_npz(io.BytesIO(stream.getvalue())):
        pass


def test_what_is_no_zip_is_refused() -> None:
    with pytest.raises(DataError, match="npz"), open_npz(io.BytesIO(b"PK\x03\x04 cut off")):
        pass
