"""Fixtures that more than one test file uses."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from tests.tfn_process import tfn, undisturbed

__all__ = ["tfn", "undisturbed"]

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Without a token of its own, a test's Ray would write one into the user's home.
os.environ.setdefault("RAY_AUTH_TOKEN", token_hex(16))

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real annotations, predictions and videos, which do not belong to the repository."""
    folder = Path(os.environ.get("TFN_SHARED_DIR", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder} (TFN_SHARED_DIR names another folder)")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One small Ray for all tests of the session; Ray's sockets need a short path."""
    import ray

    with tempfile.TemporaryDirectory(prefix="tfn-", dir="/tmp") as folder:
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=75 * 1024**2,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            log_to_driver=False,
        )
        yield
        ray.shutdown()
