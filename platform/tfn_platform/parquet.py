"""Read and write one table: checked against its schema, a file a part, contract in the metadata."""

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


def part_number(name: str) -> int:
    """The number of the part that `part_name` gave this name."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


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

    Raises:
        TableError: the rows or the contract are not this table's.
    """
    name = f"{folder.table(table.name.lower())}/{part_name(part)}"
    source = folder.store.uri(name)
    if contract.table != table.name:
        raise TableError(f"{source}: {table.name} cannot carry a contract of {contract.table}")
    rows = table.conform(rows, source=source).replace_schema_metadata(contract.to_metadata())
    lengths = rows_per_group or [rows.num_rows]
    if sum(lengths) != rows.num_rows:
        raise ValueError(f"rows_per_group must sum to the {rows.num_rows} rows, got {sum(lengths)}")
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
        start = 0
        for length in lengths:
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
    try:
        rows = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
    except pa.ArrowInvalid as error:
        raise TableError(
            f"{folder.uri}: the parts of {table.name} do not fit together: {error}"
        ) from error
    return rows, contract


def read_part(folder: StageFolder, table: Table, part: int) -> pa.Table:
    """Read one part of a table, by its number."""
    name = f"{folder.table(table.name.lower())}/{part_name(part)}"
    return _read_file(folder.store, name, table)


def _read_each_part(store: Store, relative: str, table: Table) -> Iterator[pa.Table]:
    for name in store.list_files(relative):
        yield _read_file(store, f"{relative}/{name}", table)


def _read_file(store: Store, relative: str, table: Table) -> pa.Table:
    source = store.uri(relative)
    try:
        with store.filesystem.open_input_file(store.path(relative)) as stream:
            rows = pq.read_table(stream)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{source}: cannot be read as Parquet: {error}") from error
    rows = table.conform(rows, source=source)
    contract = Contract.from_schema(rows.schema, source=source)
    if contract.table != table.name:
        raise TableError(f"{source}: must hold {table.name}, got {contract.table}")
    return rows


def content_hash(rows: pa.Table) -> str:
    """A hash of a table's values, whatever the order of its rows and columns and its files.

    Takes columns of strings and numbers, not of lists.
    """
    names = sorted(rows.schema.names)
    ordered = rows.sort_by([(name, "ascending") for name in names])
    digest = hashlib.sha256(f"{rows.num_rows}:".encode())
    for name in names:
        column = ordered[name]
        if pa.types.is_string(column.type):
            data = "\0".join(column.to_pylist()).encode()
        else:
            data = column.to_numpy().tobytes()
        digest.update(f"{name}:{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]
