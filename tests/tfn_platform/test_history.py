"""Following a training that runs elsewhere: each epoch once, none missed."""

import threading
import time
from pathlib import Path

import pytest

from tfn_platform import history
from tfn_platform.history import following, read_history
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.training import EpochReport


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    monkeypatch.setattr(history, "POLL_SECONDS", 0.01)
    return Stage("finetune", {}).folder(Store.open(str(tmp_path)))


def write_epochs(folder: StageFolder, count: int) -> None:
    entries = [{"epoch": epoch, "metrics": {"loss": epoch / 2}} for epoch in range(count)]
    folder.store.write_json(folder.history, entries)


def expected(count: int) -> list[EpochReport]:
    return [EpochReport(epoch, {"loss": epoch / 2}) for epoch in range(count)]


def wait_for(seen: list[EpochReport], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(seen) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def test_history_of_a_training_that_has_not_begun(folder: StageFolder) -> None:
    assert read_history(folder) == []


def test_each_epoch_is_seen_once_while_it_happens_and_at_the_end(folder: StageFolder) -> None:
    write_epochs(folder, 1)
    seen: list[EpochReport] = []
    with following(folder, seen.append):
        wait_for(seen, 1)
        for count in (2, 4):
            write_epochs(folder, count)
            wait_for(seen, count)
        assert seen == expected(4)
        write_epochs(folder, 2)  # A worker that starts again repeats nothing that was seen.
        time.sleep(0.05)
        write_epochs(folder, 6)
    assert seen == expected(6)


def test_what_comes_too_late_for_the_poll_is_caught_at_the_end(
    folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "POLL_SECONDS", 60)
    seen: list[EpochReport] = []
    with pytest.raises(RuntimeError, match="the job failed"), following(folder, seen.append):
        write_epochs(folder, 3)
        raise RuntimeError("the job failed")
    assert seen == expected(3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_epoch_whose_listener_failed_is_not_repeated(folder: StageFolder) -> None:
    """The epochs before the failing one were reported a second time at the end."""
    seen: list[int] = []
    failed = threading.Event()

    def listen(report: EpochReport) -> None:
        seen.append(report.epoch)
        if report.epoch == 1:
            failed.set()
            raise ConnectionError

    write_epochs(folder, 3)
    with following(folder, listen):
        assert failed.wait(10)
    assert seen == [0, 1, 2]
