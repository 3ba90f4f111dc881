"""Manifests: a .csv or .parquet table of videos, read in columns."""

import os
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs

from tfn_jobs.video_files import safe_uri
from tfn_platform.errors import DataError

MANIFEST_SUFFIXES = {".csv", ".parquet"}
PLACES = ("uri", "path")
ROWS_PER_BATCH = 1 << 16
# Read as text whatever they look like: the id 007 is not 7.
COLUMNS = {
    "uri": pa.string(),
    "path": pa.string(),
    "video_id": pa.string(),
    "subset": pa.string(),
    "duration_seconds": pa.float64(),
}


def read_manifest(source: str) -> pa.Table:
    """Read the columns of a manifest that mean something here; others are the user's own.

    Returns:
        `uri` (absolute: names without a folder are taken from the manifest's own), and where the
        manifest has them `video_id`, `subset` and `duration_seconds` (these two may be null).

    Raises:
        DataError: it cannot be read, has no column of places or one twice, or a row has none or
            says nonsense.
    """
    try:
        rows = _read_columns(source)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{source}: cannot be read as a manifest: {error}") from error
    places = [name for name in PLACES if name in rows.schema.names]
    if len(places) != 1:
        raise DataError(
            f"{source}: a manifest needs a column 'uri' or 'path' (one of them), got "
            f"{', '.join(rows.schema.names) or 'none of its columns'}"
        )
    for name in [*places, *(["video_id"] if "video_id" in rows.schema.names else [])]:
        _refuse(rows, name, _is_empty(rows[name]), source=source, what="is empty")
    if "duration_seconds" in rows.schema.names:
        seconds = rows["duration_seconds"]
        is_wrong = pc.invert(pc.and_(pc.is_finite(seconds), pc.greater(seconds, 0)))
        what = "must be a positive number of seconds, or empty"
        _refuse(rows, "duration_seconds", is_wrong, source=source, what=what)
    if "subset" in rows.schema.names:
        at, subset = rows.schema.get_field_index("subset"), rows["subset"]
        rows = rows.set_column(at, "subset", pc.if_else(_is_empty(subset), None, subset))
    column = rows.schema.get_field_index(places[0])
    return rows.set_column(column, "uri", _absolute(rows[places[0]], source.rpartition("/")[0]))


def map_texts(texts: pa.ChunkedArray, function: Callable[[str], str]) -> pa.ChunkedArray:
    """Apply a function to each text, never to so many that Python's strings fill the memory."""
    batches = pa.table([texts], ["text"]).to_batches(max_chunksize=ROWS_PER_BATCH)
    mapped = [pa.array(map(function, batch["text"].to_pylist()), pa.string()) for batch in batches]
    return pa.chunked_array(mapped, pa.string())


def _read_columns(source: str) -> pa.Table:
    if "://" in source:
        filesystem, path = fs.FileSystem.from_uri(safe_uri(source))
    else:
        filesystem, path = fs.LocalFileSystem(), source
    with filesystem.open_input_file(path) as stream:
        if source.lower().endswith(".parquet"):
            names = _known_columns(pq.read_schema(stream))
            stream.seek(0)
            rows = pq.read_table(stream, columns=names)
        else:
            options = pyarrow.csv.ConvertOptions(
                column_types=COLUMNS, strings_can_be_null=False, null_values=[""]
            )
            rows = pyarrow.csv.read_csv(stream, convert_options=options)
            rows = rows.select(_known_columns(rows.schema))
    columns = [rows[name].cast(COLUMNS[name]) for name in rows.schema.names]
    return pa.table(columns, names=rows.schema.names)


def _known_columns(schema: pa.Schema) -> list[str]:
    names = [name for name in schema.names if name in COLUMNS]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"it has the column {twice[0]!r} more than once")
    return names


def _is_empty(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(texts, ""), True)


def _refuse(
    rows: pa.Table, name: str, is_wrong: pa.ChunkedArray, *, source: str, what: str
) -> None:
    """Name the first row that is wrong; null is not."""
    wrong = pc.fill_null(is_wrong, False)
    count = pc.sum(wrong).as_py()
    if count:
        first = pc.index(wrong, True).as_py()
        raise DataError(
            f"{source}: column {name!r} {what}; {count} rows are wrong, the first is number "
            f"{first + 1} after the header: {rows[name][first].as_py()!r}"
        )


def _absolute(places: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    """Addresses that mean the same wherever they are read."""
    return map_texts(places, lambda place: _absolute_one(place, folder))


def _absolute_one(place: str, folder: str) -> str:
    if place.startswith("file://"):
        return str(fs.FileSystem.from_uri(safe_uri(place))[1])
    if "://" in place:
        return safe_uri(place)
    if place.startswith("/"):
        return place
    return safe_uri(f"{folder}/{place}") if "://" in folder else os.path.join(folder, place)
