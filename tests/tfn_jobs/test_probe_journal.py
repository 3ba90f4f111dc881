"""What is known of each video outlives the run that found it out."""

from typing import Any

import pyarrow as pa
import pytest

from tfn_jobs import probe_journal
from tfn_jobs.probe_journal import PROBED, ProbeJournal
from tfn_platform.errors import TableError
from tfn_platform.stages import Stage
from tfn_platform.store import Store

PREPARE = Stage("prepare", {})


def row(video_id: str, *, reason: str = "", attempts: int = 1) -> dict[str, Any]:
    return {
        **{"video_id": video_id, "uri": f"/{video_id}.mp4", "subset": "all"},
        **{"duration_seconds": 2.0, "frame_rate": 25.0, "width": 4, "height": 3},
        **{"size_bytes": 9, "fingerprint": "f", "reason": reason, "detail": "", "extra": 1},
        "attempts": attempts,
    }


def journal_in(store: Store) -> ProbeJournal:
    return ProbeJournal(PREPARE, PREPARE.folder(store))


def ids(table: pa.Table) -> list[str]:
    return sorted(table["video_id"].to_pylist())


def test_rows_are_there_before_and_after_they_are_written(store: Store) -> None:
    journal = journal_in(store)
    assert journal.rows().num_rows == 0
    journal.add(row("a"))
    assert ids(journal.rows()) == ["a"] and not ids(journal_in(store).rows())
    journal.flush()
    journal.add(row("b", reason="truncated"))
    assert ids(journal.rows()) == ["a", "b"] and ids(journal_in(store).rows()) == ["a"]
    journal.flush()
    again = journal_in(store)
    again.add(row("c"))
    again.flush()
    assert ids(journal_in(store).rows()) == ["a", "b", "c"]
    assert journal_in(store).rows().schema == PROBED.schema


def test_rows_are_written_now_and_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 19.0, 21.0, 21.0, 30.0])
    monkeypatch.setattr(probe_journal.time, "monotonic", lambda: next(seconds))
    journal = journal_in(store)
    written = []
    place = PREPARE.folder(store).table("probed")
    for name in ("a", "b", "c"):
        journal.add(row(name))
        written.append(len(store.list_files(place)))
    assert written == [0, 1, 1]


def test_many_rows_are_written_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_journal, "MAX_ROWS_PER_FRAGMENT", 2)
    journal = journal_in(store)
    for name in ("a", "b", "c"):
        journal.add(row(name))
    assert ids(journal_in(store).rows()) == ["a", "b"]


def test_what_need_not_be_the_files_fault_is_not_known(store: Store) -> None:
    journal = journal_in(store)
    for name, reason in (("a", ""), ("b", "timed_out"), ("c", "truncated")):
        journal.add(row(name, reason=reason, attempts=2))
    journal.flush()
    again = journal_in(store)
    assert ids(again.rows()) == ["a", "c"]
    assert again.former_attempts == {"b": 2}
    listed = pa.table({"video_id": ["a", "b", "c", "d"]})
    assert ids(again.without_known(listed)) == ["b", "d"]
    again.add(row("b", reason="timed_out", attempts=4))
    again.flush()
    third = journal_in(store)
    assert third.former_attempts == {"b": 4}
    third.add(row("b", attempts=5))
    third.flush()
    assert ids(journal_in(store).rows()) == ["a", "b", "c"]


def test_deleting_leaves_the_rows_in_memory(store: Store) -> None:
    journal = journal_in(store)
    journal.delete()
    journal.add(row("a"))
    journal.flush()
    journal.delete()
    assert ids(journal.rows()) == ["a"] and not ids(journal_in(store).rows())


def test_a_row_of_another_type_is_refused(store: Store) -> None:
    journal = journal_in(store)
    journal.add({**row("a"), "width": "wide"})
    with pytest.raises(TableError, match="rows of PROBED"):
        journal.flush()
