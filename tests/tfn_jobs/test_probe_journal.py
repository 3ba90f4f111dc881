"""What is known of each video outlives the run that found it out."""

from typing import Any

import pyarrow as pa
import pytest

from tfn_jobs import probe_journal
from tfn_jobs.probe_journal import PROBED, ProbeJournal
from tfn_platform.errors import TableError
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tables import VIDEOS

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
    assert ids(journal_in(store).rows()) == ["a", "c"]
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


def test_what_cannot_be_used_is_looked_into_again(store: Store) -> None:
    """Only failures that need not be the file's fault add up: the others' files may be mended."""
    journal = journal_in(store)
    for name, reason in (("a", ""), ("b", "timed_out"), ("c", "truncated")):
        journal.add(row(name, reason=reason, attempts=2))
    journal.flush()
    again = journal_in(store)
    assert ids(again.rows()) == ["a"]
    assert again.former_attempts == {"b": 2}
    listed = pa.table({"video_id": ["a", "b", "c", "d"]})
    assert ids(again.without_known(listed)) == ["b", "c", "d"]
    again.add(row("b", reason="timed_out", attempts=4))
    again.add(row("c", reason="truncated"))
    again.flush()
    third = journal_in(store)
    assert third.former_attempts == {"b": 4}
    third.add(row("b", attempts=5))
    third.flush()
    assert ids(journal_in(store).rows()) == ["a", "b"]


def test_deleting_leaves_the_rows_in_memory(store: Store) -> None:
    journal = journal_in(store)
    journal.delete()
    journal.add(row("a"))
    journal.flush()
    journal.delete()
    assert ids(journal.rows()) == ["a"] and not ids(journal_in(store).rows())


def test_two_runs_at_one_time(store: Store) -> None:
    """They wrote files of the same names: each lost rows to the other."""
    first, second = journal_in(store), journal_in(store)
    for journal, names in ((first, "ab"), (second, "bc")):
        for name in names:
            journal.add(row(name))
        journal.flush()
    assert ids(journal_in(store).rows()) == ["a", "b", "c"]
    first.delete()
    second.add(row("d"))
    second.flush()
    second.delete()
    assert ids(second.rows()) == ["b", "c", "d"]


def test_a_video_that_was_usable_once_is_so(store: Store) -> None:
    first, second = journal_in(store), journal_in(store)
    for journal, reason in ((first, "timed_out"), (second, "")):
        journal.add(row("a", reason=reason))
        journal.flush()
    first.add(row("a"))
    assert first.rows()["reason"].to_pylist() == [""]
    assert journal_in(store).rows()["reason"].to_pylist() == [""]


def test_rows_are_in_memory_once(store: Store) -> None:
    """There were two copies of each, one in order and one as they had come, until the end."""
    journal = journal_in(store)
    for number in range(3_000):
        journal.add(row(f"{number:04d}"))
    journal.flush()
    before = pa.total_allocated_bytes()
    rows = journal.rows()
    assert pa.total_allocated_bytes() - before < 0.2 * rows.nbytes
    assert ids(journal.rows()) == ids(rows)


def test_a_listing_of_which_nothing_is_known_is_not_copied(store: Store) -> None:
    listed = pa.table({"video_id": ["a", "b"]})
    journal = journal_in(store)
    assert journal.without_known(listed) is listed
    journal.add(row("a"))
    assert ids(journal.without_known(listed)) == ["b"]


def test_files_that_another_run_deletes_are_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_in(store)
    journal.add(row("a"))
    journal.flush()
    there = Store.list_files

    def with_one_that_is_gone(store: Store, folder: str) -> list[str]:
        gone = ["part-00007.parquet"] if folder.endswith("probed") else []
        return gone + there(store, folder)

    monkeypatch.setattr(Store, "list_files", with_one_that_is_gone)
    assert ids(journal_in(store).rows()) == ["a"]
    # It goes between a look at it and the deletion.
    monkeypatch.setattr(Store, "exists", lambda store, relative: True)
    journal.delete()
    assert there(store, PREPARE.folder(store).table("probed")) == []


def test_videos_of_a_run_that_was_killed_before_its_commit_are_known(store: Store) -> None:
    folder = PREPARE.folder(store)
    videos = pa.Table.from_pylist([row("a")]).select(VIDEOS.schema.names).cast(VIDEOS.schema)
    write_table(folder, VIDEOS, videos, contract=PREPARE.contract(VIDEOS))
    journal = journal_in(store)
    assert [{**made, "extra": 1} for made in journal.rows().to_pylist()] == [row("a")]
    journal.add(row("a"))
    journal.add(row("b"))
    assert ids(journal.rows()) == ["a", "b"]


def test_a_row_of_another_type_is_refused(store: Store) -> None:
    journal = journal_in(store)
    journal.add({**row("a"), "width": "wide"})
    with pytest.raises(TableError, match="rows of PROBED"):
        journal.flush()
