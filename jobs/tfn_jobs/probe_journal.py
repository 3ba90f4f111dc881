"""What `prepare` has found out so far, kept where a run that was killed finds it again."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from tfn_platform.errors import TableError
from tfn_platform.parquet import part_number, read_part, read_parts, write_table
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

    Only videos that can be used count as looked at: the others may have been mended since. The
    files have unique names, so that two runs of the stage at one time do not harm each other.
    """

    def __init__(self, stage: Stage, folder: StageFolder) -> None:
        """Read what former runs of the stage left."""
        self._stage = stage
        self._folder = folder
        self._place = folder.table(PROBED.name.lower())
        rows = pa.concat_tables([PROBED.schema.empty_table(), *self._fragments()])
        usable = rows.filter(pc.equal(rows["reason"], ""))
        self._tables = [usable, self._finished()]
        self.former_attempts: dict[str, int] = {}
        """By video id: attempts on videos that were given up for a transient reason."""
        is_transient = pc.is_in(rows["reason"], value_set=TRANSIENT)
        for row in rows.filter(is_transient).select(["video_id", "attempts"]).to_pylist():
            # They add up from run to run.
            former = self.former_attempts.get(row["video_id"], 0)
            self.former_attempts[row["video_id"]] = max(former, row["attempts"])
        self._fresh: list[dict[str, Any]] = []
        self._last_write = time.monotonic()

    def rows(self) -> pa.Table:
        """All rows so far, each video once, in the order of their ids."""
        rows = pa.concat_tables([*self._tables, self._fresh_table()])
        # The reason of a usable video is "", which comes first.
        rows = rows.sort_by([("video_id", "ascending"), ("reason", "ascending")])
        ids = rows["video_id"].combine_chunks()
        is_first = pc.not_equal(ids[1:], ids[:-1])
        if not pc.all(is_first, min_count=0).as_py():
            rows = rows.filter(pa.concat_arrays([pa.array([True]), is_first]))
        self._tables = [rows]  # in place of the same rows, so that there are no two of each
        return rows

    def without_known(self, listed: pa.Table) -> pa.Table:
        """The listed videos that have no row yet."""
        rows = self.rows()
        if not rows.num_rows:
            return listed  # without a copy
        known = pc.is_in(listed["video_id"], value_set=rows["video_id"].combine_chunks())
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
        write_table(self._folder, PROBED, table, contract=contract, part=uuid4().int)
        self._tables.append(table)
        self._fresh = []

    def delete(self) -> None:
        """Delete the files, once VIDEOS is written; the rows stay in memory."""
        for name in self._folder.store.list_files(self._place):
            # Another run may delete them as well.
            with suppress(FileNotFoundError):
                self._folder.store.delete_file(f"{self._place}/{name}")

    def _fragments(self) -> list[pa.Table]:
        """What is in the files, but for those that another run has just deleted."""
        tables = []
        for name in self._folder.store.list_files(self._place):
            try:
                part = read_part(self._folder, PROBED, part_number(name))
            except TableError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
            else:
                tables.append(part.cast(PROBED.schema))
        return tables

    def _finished(self) -> pa.Table:
        """Rows of a run that wrote VIDEOS, deleted its files, and was killed before the commit."""
        if not self._folder.store.list_files(self._folder.table(VIDEOS.name.lower())):
            return PROBED.schema.empty_table()
        videos, _ = read_parts(self._folder, VIDEOS)
        sound = {"reason": "", "detail": "", "attempts": 1}
        for name, value in sound.items():
            videos = videos.append_column(name, pa.repeat(value, videos.num_rows))
        return videos.select(PROBED.schema.names).cast(PROBED.schema)

    def _fresh_table(self) -> pa.Table:
        try:
            return pa.Table.from_pylist(self._fresh, schema=PROBED.schema)
        except pa.ArrowException as error:
            raise TableError(f"{self._folder.uri}: rows of {PROBED.name}: {error}") from error
