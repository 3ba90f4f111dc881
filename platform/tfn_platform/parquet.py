"""Read and write one table: checked against its schema, one atomic file a part, contract in the metadata."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tfn_platform.errors import TableError
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import Contract, Table


def part_name(part: int) -> str:
    """The file name of a table's part."""
    return f"part-{part:05d}.parquet"


def write_table(
    folder: StageFolder,
    table: Table,
    rows: pa.Table,
    *,
    contract: Contract,
    part: int = 0,
    rows_per_group: list[int] | None = None,
) -> None:
    """Write one part of a table; it appears whole or not at all.

    Args:
        folder: the stage that makes the table.
        table: which table it is.
        rows: the rows, in the table's schema.
        contract: goes into the file's metadata.
        part: the number of the part; writing a part again replaces it.
        rows_per_group: the lengths of the row groups, for tables that are read by the row group.
    """
    name = f"{folder.table(table.name.lower())}/{part_name(part)}"
    table.check(rows.schema, source=folder.store.uri(name))
    rows = rows.replace_schema_metadata(contract.to_metadata())
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
        start = 0
        for length in rows_per_group or [rows.num_rows]:
            writer.write_table(rows.slice(start, length), row_group_size=max(length, 1))
            start += length
    folder.store.write_bytes(name, memoryview(sink.getvalue()))


def read_table(folder: StageFolder, table: Table) -> tuple[pa.Table, Contract]:
    """Read all parts of a table of a finished stage, in the order of their numbers.

    Raises:
        TableError: the stage is not finished, there are no parts, or they are not of this table.
    """
    if not folder.is_done:
        raise TableError(f"{folder.uri}: the stage has not finished; run it first")
    return read_parts(folder, table)


def read_parts(folder: StageFolder, table: Table) -> tuple[pa.Table, Contract]:
    """As `read_table`, also inside a stage that is still running."""
    parts = list(_read_each_part(folder.store, folder.table(table.name.lower()), table))
    if not parts:
        raise TableError(f"{folder.uri}: there is no {table.name} table")
    contract = Contract.from_schema(parts[0].schema, source=folder.uri)
    return pa.concat_tables([part.replace_schema_metadata(None) for part in parts]), contract


def _read_each_part(store: Store, relative: str, table: Table) -> Iterator[pa.Table]:
    for name in store.list_files(relative):
        source = store.uri(f"{relative}/{name}")
        try:
            with store.filesystem.open_input_file(store.path(f"{relative}/{name}")) as stream:
                part = pq.read_table(stream)
        except (pa.ArrowInvalid, OSError) as error:
            raise TableError(f"{source}: cannot be read as Parquet: {error}") from error
        table.check(part.schema, source=source)
        if Contract.from_schema(part.schema, source=source).table != table.name:
            raise TableError(f"{source}: holds another table than {table.name}")
        yield part


def content_hash(rows: pa.Table) -> str:
    """A hash of a table's values that depends on neither the order of rows nor the files they lie in.

    Takes columns of strings and numbers, not of lists.
    """
    ordered = rows.sort_by([(name, "ascending") for name in rows.schema.names])
    digest = hashlib.sha256()
    for name in sorted(ordered.schema.names):
        column = ordered[name]
        if pa.types.is_string(column.type):
            data = "\0".join(column.to_pylist()).encode()
        else:
            data = column.to_numpy().tobytes()
        digest.update(f"{name}:{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]
