"""Send a pipeline to a running Ray cluster as a job, follow its log, stop it.

The cluster needs Ray and the dependencies, not this project: the three packages travel with the
job. Authentication is Ray's: with `RAY_AUTH_MODE=token` the token comes from `RAY_AUTH_TOKEN`, from
the file that `RAY_AUTH_TOKEN_PATH` names, or from `~/.ray/auth_token`. It goes into the request's
header and nowhere else.
"""

import asyncio
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from tfn_platform.cluster import package_folders
from tfn_platform.errors import ResourceError

INTERRUPTED_EXIT_CODE = 130
POLL_SECONDS = 0.5

# Ray's client tells on its way what we say ourselves: uploads, closed connections.
for chatty in ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
    logging.getLogger(chatty).setLevel(logging.WARNING)


def submit_pipeline(
    spec_path: Path,
    *,
    address: str,
    root: str,
    overrides: Sequence[str] = (),
    env_vars: Mapping[str, str] | None = None,
) -> int:
    """Run a pipeline spec on the cluster and follow it to its end.

    Args:
        spec_path: the pipeline spec; this one file is sent along.
        address: the cluster's job server, such as `http://127.0.0.1:8265`.
        root: storage root that every node of the cluster can reach: a URI or an absolute path.
        overrides: `path.to.field=value` settings on top of the spec.
        env_vars: variables for every process of the job. The job server shows them to whoever may
            log in, so they are no place for a secret.

    Returns:
        0 when the pipeline succeeded, the exit code of the job otherwise, 130 when the user stopped
        watching.

    Raises:
        ValueError: the address or the root cannot be meant for a cluster.
        ResourceError: the cluster cannot be reached, or refuses the token.
    """
    if "://" not in root and not root.startswith("/"):
        raise ValueError(
            f"root must be a URI or an absolute path that every node of the cluster can reach, got "
            f"{root!r}; s3://BUCKET/FOLDER or a shared folder such as /mnt/tfn would do"
        )
    command = ["python", "-m", "tfn_jobs.cli", "run", spec_path.name, "--root", root]
    command += ["--address", "auto"]
    for override in overrides:
        command += ["--set", override]
    with tempfile.TemporaryDirectory(prefix="tfn-submit-") as folder:
        shutil.copy(spec_path, folder)
        submission_id = submit_job(
            shlex.join(command),
            address=address,
            name=spec_path.stem,
            working_dir=Path(folder),
            env_vars=env_vars,
        )
    return follow_job(submission_id, address=address)


def submit_job(
    entrypoint: str,
    *,
    address: str,
    name: str,
    working_dir: Path,
    env_vars: Mapping[str, str] | None = None,
) -> str:
    """Send a shell command with our code to the cluster; returns its submission id at once."""
    client = _connect(address)
    runtime_env = {
        "py_modules": package_folders(),
        "working_dir": str(working_dir),
        "excludes": ["__pycache__"],
        "env_vars": {"PYTHONUNBUFFERED": "1", **(env_vars or {})},
    }
    with _plain_errors(address):
        submission_id: str = client.submit_job(
            entrypoint=entrypoint,
            submission_id=_new_submission_id(name),
            runtime_env=runtime_env,
            metadata={"pipeline": name},
        )
    print(f"submitted {submission_id} to {address}", flush=True)
    return submission_id


def follow_job(submission_id: str, *, address: str) -> int:
    """Print a job's log from its beginning until it ends; returns its exit code.

    Ctrl-C ends the watching, not the job, and returns 130.
    """
    client = _connect(address)
    try:
        with _plain_errors(address):
            return _follow(client, submission_id)
    except KeyboardInterrupt:
        print(
            f"\n{submission_id} goes on without being watched.\n"
            f"  watch it again: tfn submit --follow {submission_id} --address {address}\n"
            f"  stop it:        tfn submit --stop {submission_id} --address {address}",
            flush=True,
        )
        return INTERRUPTED_EXIT_CODE


def stop_job(submission_id: str, *, address: str) -> bool:
    """Ask a job to end; False when it had ended before."""
    client = _connect(address)
    with _plain_errors(address):
        return bool(client.stop_job(submission_id))


def _connect(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"address must be the URL of the cluster's job server, got {address!r}; "
            "http://127.0.0.1:8265 is what `ray start --head` and `ray dashboard` print"
        )
    with _plain_errors(address), _address_of_the_caller():
        return JobSubmissionClient(address)


def _new_submission_id(name: str) -> str:
    readable = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-").lower()
    return f"tfn-{readable}-{time.strftime('%Y%m%d-%H%M%S')}-{token_hex(3)}"


def _follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Print the log, connecting again when the connection breaks; the log then starts over."""
    num_printed = 0
    while True:
        try:
            num_printed = asyncio.run(_print_log(client, submission_id, num_printed=num_printed))
        except _BrokenLogError as error:
            num_printed = error.num_printed
        details = client.get_job_info(submission_id)
        if details.status.is_terminal():
            break
        time.sleep(POLL_SECONDS)
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    failed_by_itself = details.status == JobStatus.FAILED and code
    # Ray's message for a command that failed repeats the log that was just printed.
    reason = f"exit code {code}" if failed_by_itself else details.message
    print(f"{submission_id} {details.status.lower()}: {reason}", flush=True)
    return code if code is not None and 0 < code < 256 else 1


class _BrokenLogError(Exception):
    """The connection that carried the log broke after `num_printed` characters."""

    def __init__(self, num_printed: int) -> None:
        super().__init__(num_printed)
        self.num_printed = num_printed


async def _print_log(client: JobSubmissionClient, submission_id: str, *, num_printed: int) -> int:
    """Print what comes after the first `num_printed` characters; returns how many there are now."""
    num_seen = 0
    try:
        async for lines in client.tail_job_logs(submission_id):
            fresh = lines[max(0, num_printed - num_seen) :]
            num_seen += len(lines)
            print(fresh, end="", flush=True)
    except (aiohttp.ClientError, RuntimeError) as error:
        raise _BrokenLogError(max(num_printed, num_seen)) from error
    return max(num_printed, num_seen)


@contextmanager
def _address_of_the_caller() -> Iterator[None]:
    """Ray prefers these variables to the address it is given; here the caller's word counts."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _plain_errors(address: str) -> Iterator[None]:
    """Say what Ray's client could not do in the words of someone who only knows the address."""
    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(
            f"the job server at {address} refuses us: {error}\n"
            "Set RAY_AUTH_MODE=token and give the cluster's token in RAY_AUTH_TOKEN, in the file "
            "that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
        ) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise ResourceError(
            f"no Ray job server answers at {address}. Is the cluster up, and is its port forwarded "
            "to this machine (`ray dashboard cluster.yaml`)?"
        ) from error
    except RuntimeError as error:
        raise ResourceError(f"the job server at {address} refuses the request: {error}") from error
