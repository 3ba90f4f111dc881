"""The `tfn` command in processes with a Ray of their own, and how to kill them all."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = REPOSITORY / "tests" / "data" / "tiny.yaml"
TIMEOUT_SECONDS = 600.0
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Tfn:
    """Calls `tfn`.

    Attributes:
        folder: for temporary files; its path is short, for Ray's sockets.
        variables: set on top of our own environment.
    """

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Ours, without what would lead to a Ray that runs already."""
        kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "TFN_ROOT")}
        own = {"TMPDIR": str(self.folder), "COLUMNS": "200"}
        # One thread a process: the tests' networks are too small for more.
        return {**kept, **own, "OMP_NUM_THREADS": "1", **self.variables}

    def start(self, *arguments: object, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own; what it prints goes into `log`."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "tfn_jobs.cli", *map(str, arguments)],
                cwd=REPOSITORY,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __call__(self, *arguments: object) -> str:
        """Run a command to its end and return what it printed; it must succeed."""
        log = self.folder / "tfn.log"
        process = self.start(*arguments, log=log)
        try:
            code = process.wait(TIMEOUT_SECONDS)
        finally:
            kill_session(process)
        printed = log.read_text()
        assert code == 0, f"tfn {' '.join(map(str, arguments))}: exit code {code}\n{printed}"
        return printed

    @property
    def num_ray_starts(self) -> int:
        """How often Ray was started so far."""
        return len(list((self.folder / "ray").glob("session_2*")))


@pytest.fixture(scope="session")
def tfn() -> Iterator[Tfn]:
    """The command, for all tests of the session."""
    with tempfile.TemporaryDirectory(prefix="tfn-", dir="/tmp") as name:
        yield Tfn(Path(name))


@dataclass(frozen=True)
class FinishedRun:
    """A pipeline that ran to its end: its storage root, and what it printed."""

    root: Path
    printed: str

    @property
    def detections_hash(self) -> str:
        """The hash that was printed."""
        return printed_hash(self.printed)


@pytest.fixture(scope="session")
def undisturbed(tfn: Tfn, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One run of the tiny pipeline, which many tests look at or compare with. Do not change it."""
    root = tmp_path_factory.mktemp("undisturbed")
    return FinishedRun(root, tfn("run", TINY, "--root", root))


def printed_hash(printed: str) -> str:
    """The hash of the detections that a run printed."""
    found = re.findall(r"^detections hash: (\w+)$", printed, re.MULTILINE)
    assert len(found) == 1, printed
    return str(found[0])


def planned(printed: str, mark: str) -> list[str]:
    """The stages that a plan marks as ``made`` or as ``run``."""
    return re.findall(rf"^{mark} +(\S+) +[0-9a-f]{{16}}", printed, re.MULTILINE)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL all processes of the session that `process` was started in.

    A worker may leave its parent's process group, but not the session.
    """
    while alive := processes_of_session(process.pid):
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.poll()
        time.sleep(POLL_SECONDS)
    process.wait()


def processes_of_session(session: int) -> list[int]:
    """The living processes of a session, the first one first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(folder.name))
    return sorted(found)


def kill_when(process: subprocess.Popen[bytes], is_time: Callable[[], bool], *, log: Path) -> None:
    """SIGKILL the session of `process` as soon as `is_time`; it must not have ended before."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not is_time():
            assert process.poll() is None, f"ended by itself:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"never got there:\n{log.read_text()}"
            time.sleep(POLL_SECONDS)
    finally:
        kill_session(process)
