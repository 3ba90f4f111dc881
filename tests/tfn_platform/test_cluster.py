"""Connecting to Ray: what it cannot give is said within seconds."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.s3_server import free_port
from tfn_platform.cluster import connection, package_folders, require_resources
from tfn_platform.errors import ResourceError


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nonsense", "host:port", "[::1]:{port}"],
)
def test_a_wrong_address_is_refused_within_seconds(address: str) -> None:
    """Ray asked for minutes and then ended the process."""
    code = (
        "from tfn_platform.cluster import connection\n"
        "from tfn_platform.errors import ResourceError\n"
        "import time; start = time.monotonic()\n"
        "try:\n"
        f"    with connection({address.format(port=free_port())!r}): pass\n"
        "except ResourceError as error:\n"
        "    print(error); assert time.monotonic() - start < 15\n"
        "else: raise SystemExit('connected')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"no Ray cluster answers at '{address.split('{')[0]}")
    assert "leave --address out to run on this machine" in done.stdout


def test_the_packages_that_workers_need_are_found() -> None:
    folders = [Path(folder) for folder in package_folders()]
    assert [folder.name for folder in folders] == ["tfn_platform", "tfn_models", "tfn_jobs"]
    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.usefixtures("ray_session")
def test_resources_that_fit_are_granted_and_others_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFN_CLUSTER_GROWS", raising=False)
    require_resources(4, 0, purpose="fine-tuning")
    with pytest.raises(ResourceError) as caught:
        require_resources(5, 0, purpose="fine-tuning")
    assert "fine-tuning needs 5 CPU and 0 GPU on one machine, the cluster has 4 CPU" in str(
        caught.value
    )
    with pytest.raises(ResourceError, match="needs 1 CPU and 99 GPU"):
        require_resources(1, 99, purpose="x")
    monkeypatch.setenv("TFN_CLUSTER_GROWS", "1")
    require_resources(500, 8, purpose="x")


def test_two_small_machines_are_not_one_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum over the cluster was compared, and what fits no machine waited for ever."""
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.delenv("TFN_CLUSTER_GROWS", raising=False)
    require_resources(8, 0, purpose="x")
    require_resources(2, 1, purpose="x")
    for cpus, gpus in ((10, 0), (4, 1), (1, 2)):
        with pytest.raises(ResourceError, match="2 CPU and 1 GPU, 8 CPU and 0 GPU"):
            require_resources(cpus, gpus, purpose="x")


@pytest.mark.usefixtures("ray_session")
def test_an_existing_connection_is_used_and_left_alone() -> None:
    import ray

    start = time.monotonic()
    with connection("127.0.0.1:1"):
        assert ray.is_initialized()
    assert ray.is_initialized()
    assert time.monotonic() - start < 1


LISTENERS = """
import os, ray
from pathlib import Path
from tfn_platform.cluster import connection


def descendants(parent):
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield child
            yield from descendants(child)


with connection(None, local_cpus=1):
    ray.get(ray.remote(lambda: 1).remote())
    sockets = set()
    for process in [str(os.getpid()), *descendants(os.getpid())]:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            try:
                sockets.add(os.readlink(handle).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                pass
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                print(fields[1].split(":")[0])
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's list of sockets")
def test_a_ray_started_here_listens_on_loopback_only() -> None:
    """Ray takes 127.0.0.1 for the machine's own address, and was open on every interface."""
    result = subprocess.run(
        [sys.executable, "-c", LISTENERS], capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    addresses = set(result.stdout.split())
    assert addresses and addresses <= LOOPBACK
