"""How long the videos are that foreign features belong to: a table of them, or an annotation."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs

from tfn_platform.datasets import DATASETS
from tfn_platform.errors import DataError
from tfn_platform.store import Store

ID_COLUMNS = ("video_id", "video")
DURATION_COLUMNS = ("duration_seconds", "duration", "seconds")
TABLE_FORMAT = "table"
# A video's name may look like a number; only an empty field is unknown.
_TEXTS = pyarrow.csv.ConvertOptions(
    column_types={name: pa.string() for name in (*ID_COLUMNS, "subset")}, null_values=[""]
)


def read_durations(
    store: Store, relative: str, *, layout: str, subsets: tuple[str, ...] = ()
) -> dict[str, float | None]:
    """The duration of each video, in seconds; None where the file is silent.

    Args:
        store: the file's folder.
        relative: its name there: a `.csv` or `.parquet` file, or a folder of Parquet files such as
            a VIDEOS table, with the columns video_id (or video) and duration_seconds (or duration,
            seconds), and subset if subsets are asked for; or an annotation.
        layout: "table" for the former, or the annotation's format.
        subsets: only videos of these; () is all.

    Raises:
        DataError: it cannot be read, lacks a column or has it twice, has a row without a video,
            names a video twice, or has no video of a subset.
    """
    source = store.uri(relative) if relative else store.root
    try:
        if layout == TABLE_FORMAT:
            rows = _read_table(store, relative, source, with_subset=bool(subsets))
        else:
            rows = _read_annotation(store, relative, layout)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error}") from error
    known = {subset for _, _, subset in rows}
    for subset in subsets:
        if subset not in known:
            raise DataError(f"{source}: no video of subset {subset!r}; it has {sorted(known)}")
    durations: dict[str, float | None] = {}
    for video_id, duration, subset in rows:
        if not video_id:
            raise DataError(f"{source}: a row has no video's name")
        if subsets and subset not in subsets:
            continue
        if video_id in durations:
            raise DataError(f"{source}: video {video_id!r} is there twice")
        if duration is not None and not 0 < duration < float("inf"):
            raise DataError(f"{source}: video {video_id!r} cannot last {duration} seconds")
        durations[video_id] = duration
    return durations


_Row = tuple[str, float | None, str]


def _read_annotation(store: Store, relative: str, layout: str) -> list[_Row]:
    read = DATASETS[layout]
    if store.is_local:
        videos = read(Path(store.path(relative)))
    else:
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / Path(relative).name
            path.write_bytes(store.read_bytes(relative))
            videos = read(path)
    return [(video.video_id, video.duration_seconds, video.subset) for video in videos]


def _read_table(store: Store, relative: str, source: str, *, with_subset: bool) -> list[_Row]:
    try:
        table = pa.concat_tables(
            [
                pyarrow.csv.read_csv(io.BytesIO(store.read_bytes(name)), convert_options=_TEXTS)
                if name.endswith(".csv")
                else pq.ParquetFile(pa.BufferReader(store.read_bytes(name))).read()
                for name in _table_files(store, relative)
            ]
        )
    except pa.ArrowException as error:
        raise DataError(f"{source}: not a readable table: {error}") from error
    names = [
        _column(table, ID_COLUMNS, source),
        _column(table, DURATION_COLUMNS, source),
        *([_column(table, ("subset",), source)] if with_subset else []),
    ]
    types = (pa.string(), pa.float64(), pa.string())
    try:
        columns = [
            table[name].cast(kind).to_pylist() for name, kind in zip(names, types, strict=False)
        ]
    except pa.ArrowException as error:
        raise DataError(f"{source}: durations must be numbers of seconds: {error}") from error
    subsets = columns.pop() if with_subset else [""] * table.num_rows
    columns.append([subset or "" for subset in subsets])
    return list(zip(*columns, strict=True))


def _table_files(store: Store, relative: str) -> list[str]:
    info = store.filesystem.get_file_info(store.path(relative))
    if info.type == fs.FileType.File:
        return [relative]
    names = [name for name in store.list_files(relative) if name.endswith(".parquet")]
    if not names:
        raise DataError(f"{store.uri(relative)}: there is no such file, or no table in the folder")
    return [f"{relative}/{name}" if relative else name for name in names]


def _column(table: pa.Table, names: tuple[str, ...], source: str) -> str:
    for name in names:
        if table.schema.names.count(name) > 1:
            raise DataError(f"{source}: has the column {name} more than once")
        if name in table.schema.names:
            return name
    raise DataError(
        f"{source}: has no column {' or '.join(names)}; it has {', '.join(table.schema.names)}"
    )
