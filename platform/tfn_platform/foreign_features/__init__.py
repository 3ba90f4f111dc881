"""Features that others published: a function a format, from an open file to its arrays by name."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

from tfn_platform.foreign_features.array_file import ArrayFile
from tfn_platform.foreign_features.csv_file import open_csv
from tfn_platform.foreign_features.h5_file import open_h5
from tfn_platform.foreign_features.npy_file import open_npy, open_npz
from tfn_platform.foreign_features.tensor_file import open_pkl, open_pt

__all__ = ["FORMATS", "ArrayFile", "FeatureFormat"]


@dataclass(frozen=True)
class FeatureFormat:
    """The endings of a format's files, and what opens one."""

    endings: tuple[str, ...]
    open: Callable[[BinaryIO], AbstractContextManager[ArrayFile]]


FORMATS: dict[str, FeatureFormat] = {
    "csv": FeatureFormat((".csv",), open_csv),
    "h5": FeatureFormat((".h5", ".hdf5"), open_h5),
    "npy": FeatureFormat((".npy",), open_npy),
    "npz": FeatureFormat((".npz",), open_npz),
    "pkl": FeatureFormat((".pkl", ".pickle"), open_pkl),
    "pt": FeatureFormat((".pt", ".pth"), open_pt),
}
