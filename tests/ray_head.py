"""A real Ray head with token authentication, in a process tree of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.s3_server import free_port

START_TIMEOUT_SECONDS = 60.0
TOKEN = "a-token-for-this-test-only-0123456789"


@dataclass(frozen=True)
class Head:
    """A running Ray head: the URL of its job server and the environment of an allowed client."""

    address: str
    environment: dict[str, str]

    def call(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python code as a client: Ray reads how to authenticate once a process."""
        return subprocess.run(
            [sys.executable, "-c", f"from tfn_jobs.submit import *\n{code}"],
            env={**self.environment, "ADDRESS": self.address, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )


def ray_environment(home: Path) -> dict[str, str]:
    """Our own environment without what would point Ray elsewhere, and a home without a token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}


def start_head(
    folder: Path, *, dashboard_port: int, num_cpus: int, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start `ray start --head` so that killing its process group leaves nothing behind."""
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "start", "--head", "--block", f"--num-cpus={num_cpus}"]
    command += ["--node-ip-address=127.0.0.1"]
    command += [f"--port={free_port()}", f"--dashboard-port={dashboard_port}"]
    command += ["--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    # By default every Ray of a machine wants the same port for this, and jobs need it.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    command += ["--object-store-memory=78643200", f"--temp-dir={folder}"]
    if os.geteuid() == 0:
        namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
        command = namespace + command
    environment = {**ray_environment(folder), **variables}
    # The cluster must get our code from the job, not find it installed or on the path.
    environment.pop("PYTHONPATH", None)
    with (folder / "head.log").open("wb") as log:
        return subprocess.Popen(
            command,
            env={**environment, "RAY_AUTH_TOKEN": TOKEN, "PATH": path_with_this_python()},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def path_with_this_python() -> str:
    """A job's `python` is the first one on the path of `ray start`."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@contextmanager
def running_head(
    *, num_cpus: int = 2, variables: Mapping[str, str] | None = None
) -> Iterator[Head]:
    """Start a head and stop it at the end.

    Args:
        num_cpus: logical CPUs that it offers.
        variables: of the environment of all that runs on it.
    """
    port = free_port()
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="tfn-", dir="/tmp") as name:
        folder = Path(name)
        process = start_head(
            folder, dashboard_port=port, num_cpus=num_cpus, variables=variables or {}
        )
        started = Head(
            address=f"http://127.0.0.1:{port}",
            environment={**ray_environment(folder), "RAY_AUTH_TOKEN": TOKEN},
        )
        try:
            wait_until_ready(started, process, log=folder / "head.log")
            yield started
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(head: Head, process: subprocess.Popen[bytes], *, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            url = f"{head.address}/api/jobs/"
            headers = {"Authorization": f"Bearer {TOKEN}"}
            if requests.get(url, headers=headers, timeout=5).status_code == 200:
                return
        except requests.exceptions.RequestException:
            pass
        time.sleep(0.25)
    raise AssertionError(f"the head was not ready in time:\n{log.read_text()}")
