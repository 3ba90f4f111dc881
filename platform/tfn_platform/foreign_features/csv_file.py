"""csv files of features: a line a clip, as the two-stream (TSN, CUHK) features were published.

The first line may name the columns (`f0,f1,…`, or 0,1,2,… as pandas does). A first column without
a name that counts the lines is what pandas writes as its index, and is left out.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from tfn_platform.errors import DataError
from tfn_platform.foreign_features.array_file import (
    MAX_ARRAY_BYTES,
    ArrayFile,
    array_file_of,
)

# Lines are tens of kilobytes: blocks of the usual size hold few and cost more than the numbers.
BLOCK_BYTES = 16 * 1024**2


@contextmanager
def open_csv(stream: BinaryIO) -> Iterator[ArrayFile]:
    """The one array [lines, columns] of a csv file, called "".

    Raises:
        DataError: it is no text, a field is no number, or its lines have not equally many.
    """
    data = stream.read(MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        raise DataError(f"a csv file of one video has at most {MAX_ARRAY_BYTES // 1024**3} GiB")
    yield array_file_of({"": _parse(data)})


def _parse(data: bytes) -> NDArray[Any]:
    first, _, rest = data.lstrip(b"\xef\xbb\xbf").partition(b"\n")
    fields = [field.strip(b" \r\"'") for field in first.split(b",")]
    has_header = _names_columns(fields)
    body = rest if has_header else data
    if not body.strip():
        raise DataError("the csv file holds no line of numbers")
    columns = [str(number) for number in range(len(fields))]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(body),
            read_options=pyarrow.csv.ReadOptions(
                column_names=columns, use_threads=False, block_size=BLOCK_BYTES
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.float64() for name in columns},
                null_values=[],
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"not a csv file of numbers: {error}") from error
    values = np.stack([column.to_numpy() for column in table.columns], axis=1)
    is_index = has_header and not fields[0] and np.array_equal(values[:, 0], np.arange(len(values)))
    return values[:, 1:] if is_index else values


def _names_columns(fields: list[bytes]) -> bool:
    """Whether the first line names the columns; pandas calls nameless ones 0, 1, 2, …"""
    named = fields[1:] if not fields[0] else fields
    if len(named) > 2 and named == [str(number).encode() for number in range(len(named))]:
        return True
    are_numbers = [_is_number(field) for field in named]
    if all(are_numbers) and named == fields:
        return False
    if any(are_numbers):
        shown = b",".join(fields)[:60].decode(errors="replace")
        raise DataError(f"the first line must be all numbers or all names, got {shown!r}")
    return True


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
