"""Connect to Ray, here or on a cluster, and say plainly when it cannot give what a job needs."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402  (reads the settings above when it is imported)
from ray._private import ray_constants  # noqa: E402

from tfn_platform.errors import ResourceError  # noqa: E402

# Ray Data stalls with fewer: decode tasks, a model actor and a driver's task must fit at once.
MIN_LOGICAL_CPUS = 4
LOCAL_OBJECT_STORE_BYTES = 1 << 30
CONNECT_TIMEOUT_SECONDS = 10.0
PACKAGES = ("tfn_platform", "tfn_models", "tfn_jobs")


@contextmanager
def connection(address: str | None, *, local_cpus: int | None = None) -> Iterator[None]:
    """Be connected to Ray inside the block.

    Args:
        address: of a running cluster (``auto``, ``host:port``, ``ray://…``); None starts Ray here,
            bound to loopback, and stops it at the end. A connection that exists already is used and
            left alone.
        local_cpus: logical CPUs of a Ray started here; by default the machine's, and at least 4.

    Raises:
        ResourceError: there is no cluster at `address`.
    """
    if ray.is_initialized():
        yield
        return
    _connect(address, local_cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None, local_cpus: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address is None and not _inside_a_job():
        cpus = local_cpus or max(MIN_LOGICAL_CPUS, os.cpu_count() or 1)
        with _no_part_of_a_cluster():
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(Path(tempfile.gettempdir()) / "ray"),
                **quiet,
            )
        return
    try:
        if address is not None:
            _require_listener(address)
        ray.init(address=address or "auto", runtime_env=_runtime_env(), **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"no Ray cluster answers at {address!r}: {error}; start one with `ray up cluster.yaml` "
            "or `ray start --head`, or leave --address out to run on this machine"
        ) from error


@contextmanager
def _no_part_of_a_cluster() -> Iterator[None]:
    """Keep a Ray that starts inside the block on loopback.

    Otherwise it takes "127.0.0.1" for the machine's own address and listens on every interface.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _require_listener(address: str) -> None:
    """Raise OSError or ValueError within seconds where Ray would go on asking for minutes."""
    if address == "auto":
        return
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:
        raise ValueError("an address is auto, host:port or ray://host:port")
    place = (host.strip("[]"), int(port))
    socket.create_connection(place, timeout=CONNECT_TIMEOUT_SECONDS).close()


def _inside_a_job() -> bool:
    """Whether this process is the entry point of a job that a cluster started."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _runtime_env() -> dict[str, Any]:
    """Ships our code to a cluster's workers; a submitted job has brought it along already."""
    return {} if _inside_a_job() else {"py_modules": package_folders()}


def package_folders() -> list[str]:
    """The folders of our packages, as they are installed here."""
    folders = []
    for package in PACKAGES:
        found = find_spec(package)
        assert found is not None and found.origin is not None
        folders.append(str(Path(found.origin).parent))
    return folders


def require_resources(num_cpus: float, num_gpus: float, *, purpose: str) -> None:
    """Refuse what no machine of the cluster can ever run, instead of waiting for it for ever.

    A cluster that grows by itself may start machines that it does not have yet: it is believed.

    Raises:
        ResourceError: no machine has both the CPUs and the GPUs.
    """
    if os.environ.get("TFN_CLUSTER_GROWS"):
        return
    machines = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        has_cpus, has_gpus = (node["Resources"].get(name, 0.0) for name in ("CPU", "GPU"))
        if node["Alive"] and num_cpus <= has_cpus and num_gpus <= has_gpus:
            return
        machines += [f"{has_cpus:g} CPU and {has_gpus:g} GPU"] if node["Alive"] else []
    raise ResourceError(
        f"{purpose} needs {num_cpus:g} CPU and {num_gpus:g} GPU on one machine, the cluster has "
        f"{', '.join(sorted(set(machines)))}; lower it in the spec's resources, "
        "or set TFN_CLUSTER_GROWS=1 if the cluster starts machines on demand"
    )


@dataclass(frozen=True)
class ClusterTotals:
    """What all machines of a cluster have, busy or not.

    Attributes:
        cpus: logical CPUs, as Ray counts them.
        gpus: GPUs.
        processors: that CPUs stand for: fewer than them on a small machine that has been given
            more, so that enough actors fit on it.
    """

    cpus: float
    gpus: float
    processors: float


def cluster_totals() -> ClusterTotals:
    """What the cluster has now."""
    totals = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = totals.get("CPU", 0.0)
    num_nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    processors = min(cpus, os.cpu_count() or cpus) if num_nodes == 1 else cpus
    return ClusterTotals(cpus, totals.get("GPU", 0.0), processors)
