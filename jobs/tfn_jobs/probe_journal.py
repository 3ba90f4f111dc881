"""What `prepare` has found out so far, kept where a run that was killed finds it again."""

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfn_platform.errors import TableError
from tfn_platform.parquet import read_parts, write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import QUARANTINE, VIDEOS, QuarantineReason, Table

SECONDS_PER_FRAGMENT = 20.0
# Python objects take far more memory than Arrow does.
MAX_ROWS_PER_FRAGMENT = 8192

_FAULT = [QUARANTINE.schema.field(name) for name in ("reason", "detail", "attempts")]
PROBED = Table("PROBED", pa.schema([*VIDEOS.schema, *_FAULT]))
"""Columns of VIDEOS, and `reason` ("" for a video that can be used), `detail`, `attempts`."""

TRANSIENT = pa.array([str(reason) for reason in QuarantineReason if reason.is_transient])


class ProbeJournal:
    """Rows of PROBED in memory, as Arrow, and in small files of a stage that is not finished.

    A video that a former run gave up for a transient reason counts as not looked at.
    """

    def __init__(self, stage: Stage, folder: StageFolder) -> None:
        """Read what former runs of the stage left."""
        self._stage = stage
        self._folder = folder
        self._place = folder.table(PROBED.name.lower())
        self._next_part = len(folder.store.list_files(self._place))
        self._tables = [PROBED.schema.empty_table()]
        self.former_attempts: dict[str, int] = {}
        """By video id: attempts on videos that were given up for a transient reason."""
        if self._next_part:
            rows, _ = read_parts(folder, PROBED)
            is_transient = pc.is_in(rows["reason"], value_set=TRANSIENT)
            self._tables.append(rows.filter(pc.invert(is_transient)).cast(PROBED.schema))
            for row in rows.filter(is_transient).select(["video_id", "attempts"]).to_pylist():
                # Parts come in the order in which they were written, and attempts add up.
                self.former_attempts[row["video_id"]] = row["attempts"]
        self._fresh: list[dict[str, Any]] = []
        self._last_write = time.monotonic()

    def rows(self) -> pa.Table:
        """All rows so far, each video once."""
        return pa.concat_tables([*self._tables, self._fresh_table()])

    def without_known(self, listed: pa.Table) -> pa.Table:
        """The listed videos that have no row yet."""
        known = pc.is_in(listed["video_id"], value_set=self.rows()["video_id"].combine_chunks())
        return listed.filter(pc.invert(known))

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row; now and then, write those that have come."""
        self._fresh.append({name: row[name] for name in PROBED.schema.names})
        is_due = time.monotonic() - self._last_write >= SECONDS_PER_FRAGMENT
        if is_due or len(self._fresh) >= MAX_ROWS_PER_FRAGMENT:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are in memory only."""
        self._last_write = time.monotonic()
        if not self._fresh:
            return
        table = self._fresh_table()
        contract = self._stage.contract(PROBED)
        write_table(self._folder, PROBED, table, contract=contract, part=self._next_part)
        self._next_part += 1
        self._tables.append(table)
        self._fresh = []

    def delete(self) -> None:
        """Delete the files; the rows stay in memory."""
        store = self._folder.store
        if store.exists(self._place):
            store.filesystem.delete_dir(store.path(self._place))

    def _fresh_table(self) -> pa.Table:
        try:
            return pa.Table.from_pylist(self._fresh, schema=PROBED.schema)
        except pa.ArrowException as error:
            raise TableError(f"{self._folder.uri}: rows of {PROBED.name}: {error}") from error
