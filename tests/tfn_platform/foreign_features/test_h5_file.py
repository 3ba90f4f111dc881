"""HDF5 files are read by data set, and never lead out of themselves."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.h5_file import MAX_DEPTH, open_h5

VALUES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def names_of(path: Path) -> tuple[str, ...]:
    with open(path, "rb") as stream, open_h5(stream) as file:
        return file.names


def read(path: Path, name: str) -> np.ndarray:
    with open(path, "rb") as stream, open_h5(stream) as file:
        return file.read(name)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf", "fletcher32": True}],
    ids=["plain", "gzip", "lzf"],
)
def test_data_sets_and_groups(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v1", data=VALUES, **options)
        file.create_dataset("v2/rgb", data=VALUES[:3].astype(np.float64))
        file["v2/label"] = np.arange(3)
        file["v2/name"] = "text"
        file["scalar"] = 1.5
    assert names_of(path) == ("v1", "v2/rgb")
    np.testing.assert_array_equal(read(path, "v1"), VALUES)
    np.testing.assert_array_equal(read(path, "v2/rgb"), VALUES[:3])


def test_links_are_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["x"] = VALUES
    for number, link in enumerate([h5py.ExternalLink(str(other), "/x"), h5py.SoftLink("/v")]):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file["v"] = VALUES
            file["w"] = link
        with pytest.raises(DataError, match=type(link).__name__):
            names_of(path)


def test_numbers_in_other_files_are_not_read(tmp_path: Path) -> None:
    raw = tmp_path / "raw.bin"
    raw.write_bytes(VALUES.tobytes())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", VALUES.shape, "f4", external=[(str(raw), 0, VALUES.nbytes)])
    with pytest.raises(DataError, match="other files"):
        read(path, "v")


def test_virtual_data_sets_are_not_read(tmp_path: Path) -> None:
    other, path = tmp_path / "other.h5", tmp_path / "a.h5"
    with h5py.File(other, "w") as file:
        file["x"] = VALUES
    layout = h5py.VirtualLayout(VALUES.shape, "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", VALUES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)
    with pytest.raises(DataError, match="other files"):
        read(path, "v")


def test_plugins_are_not_loaded(tmp_path: Path) -> None:
    """An optional filter lets the file be written without it, as its number would otherwise."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(VALUES.shape)
        settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple(VALUES.shape)
        data = h5py.h5d.create(file.id, b"v", h5py.h5t.NATIVE_FLOAT, space, settings)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, VALUES)
    folders = [h5py.h5pl.get(n) for n in range(h5py.h5pl.size())]
    with pytest.raises(DataError, match="32015"):
        read(path, "v")
    assert [h5py.h5pl.get(n) for n in range(h5py.h5pl.size())] == folders


def test_no_plugin_folder_is_searched_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
    h5py.h5pl.append(b"/somewhere")
    try:
        with open(path, "rb") as stream, open_h5(stream):
            assert h5py.h5pl.size() == 0
        assert h5py.h5pl.get(h5py.h5pl.size() - 1) == b"/somewhere"
    finally:
        h5py.h5pl.remove(h5py.h5pl.size() - 1)


def test_a_group_inside_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("g")
        group["again"] = group
    with pytest.raises(DataError, match="'g/again' is a group that stands in the file twice"):
        names_of(path)


def test_groups_may_be_nested_so_far(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["/".join("g" * MAX_DEPTH + "v")] = VALUES
    assert len(names_of(path)) == 1
    with h5py.File(path, "w") as file:
        file["/".join("g" * MAX_DEPTH + "gv")] = VALUES
    with pytest.raises(DataError, match=f"{MAX_DEPTH} groups"):
        names_of(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=VALUES, compression="gzip")
    data = path.read_bytes()
    for wrong in (b"", b"text", data[: len(data) // 2], data[:600]):
        with pytest.raises(DataError), open_h5(io.BytesIO(wrong)) as file:
            file.read(file.names[0])
