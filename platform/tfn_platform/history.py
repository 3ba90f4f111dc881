"""Follow a training that runs elsewhere by the history that it writes after each epoch."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tfn_platform.store import StageFolder
from tfn_platform.training import EpochReport

POLL_SECONDS = 2.0


def read_history(folder: StageFolder) -> list[EpochReport]:
    """The epochs that have been trained so far."""
    if not folder.store.exists(folder.history):
        return []
    return [EpochReport(e["epoch"], e["metrics"]) for e in folder.store.read_json(folder.history)]


@contextmanager
def following(folder: StageFolder, on_epoch: Callable[[EpochReport], None]) -> Iterator[None]:
    """Call `on_epoch` once for each epoch, while the block runs and, for the rest, at its end."""
    over = threading.Event()
    seen = 0

    def catch_up() -> None:
        nonlocal seen
        for report in read_history(folder)[seen:]:
            seen += 1
            on_epoch(report)

    def follow() -> None:
        while not over.wait(POLL_SECONDS):
            catch_up()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        catch_up()
