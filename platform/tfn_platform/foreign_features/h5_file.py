"""HDF5 files: a data set a video, or groups of them. Nothing outside the file is ever opened.

An HDF5 file may point to other files (external links, external storage, virtual data sets) and may
ask for filters that the library loads as plugins. All of these are refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.array_file import ArrayFile, check_array, readable

_BUILT_IN_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
}
MAX_DEPTH = 8


@contextmanager
def open_h5(stream: BinaryIO) -> Iterator[ArrayFile]:
    """The data sets of an HDF5 file, by their path without the leading "/"; read one by one.

    Raises:
        DataError: it is no such file, leads out of itself, or needs a plugin to be read.
    """
    with _without_plugins():
        with readable("not a readable HDF5 file"):
            file = h5py.File(stream, "r")
        with file:
            with readable("not a readable HDF5 file"):
                names = tuple(_data_sets(file, "", seen={h5py.h5o.get_info(file.id).addr}))
            yield ArrayFile(names, lambda name: _read(file, name))


@contextmanager
def _without_plugins() -> Iterator[None]:
    """The folders in which HDF5 looks for plugins, emptied for a while."""
    folders = [h5py.h5pl.get(position) for position in range(h5py.h5pl.size())]
    for _ in folders:
        h5py.h5pl.remove(0)
    try:
        yield
    finally:
        for folder in folders:
            h5py.h5pl.append(folder)


def _data_sets(group: Any, prefix: str, *, seen: set[int]) -> Iterator[str]:
    """The paths of all data sets of floating-point numbers below a group.

    `seen` are the addresses of groups: one that can be reached in two ways may make endlessly many.
    """
    if prefix.count("/") > MAX_DEPTH:
        raise DataError(f"the HDF5 file nests more than {MAX_DEPTH} groups")
    for name in group:
        path = f"{prefix}{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise DataError(
                f"{path!r} is a link ({type(link).__name__}) and is not followed: it may lead out "
                "of the file; copy the data sets themselves into it (h5copy, or h5py's copy with "
                "expand_external and expand_soft)"
            )
        with readable(f"{path!r} cannot be opened"):
            entry = group[name]
        if isinstance(entry, h5py.Group):
            address = h5py.h5o.get_info(entry.id).addr
            if address in seen:
                raise DataError(f"{path!r} is a group that stands in the file twice")
            seen.add(address)
            yield from _data_sets(entry, f"{path}/", seen=seen)
        elif isinstance(entry, h5py.Dataset) and entry.ndim and entry.dtype.kind == "f":
            yield path


def _read(file: Any, name: str) -> NDArray[Any]:
    with readable(f"{name!r} cannot be read"):
        data_set = file[name]
        _check_storage(data_set, name)
        check_array(data_set.shape, data_set.dtype)
        values: NDArray[Any] = np.asarray(data_set[()])
    return values


def _check_storage(data_set: Any, name: str) -> None:
    """Refuse numbers that lie in other files, or that only a plugin could unpack."""
    if data_set.is_virtual or data_set.external:
        raise DataError(f"{name!r} keeps its numbers in other files, which are not opened")
    settings = data_set.id.get_create_plist()
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    if filters - _BUILT_IN_FILTERS:
        wrong = min(filters - _BUILT_IN_FILTERS)
        raise DataError(
            f"{name!r} is packed with filter {wrong}, which HDF5 would load as a plugin; write it "
            "with gzip, lzf or none"
        )
