"""The tiny pipeline as a job on a separately started cluster: the same detections as `tfn run`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_head import TOKEN, Head, running_head
from tests.s3_server import bucket_of, s3_endpoint, s3_variables
from tests.tfn_process import TINY, FinishedRun, Tfn, printed_hash

__all__ = ["s3_endpoint"]

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def head(s3_endpoint: str) -> Iterator[Head]:
    """A cluster whose processes know the way to the object store."""
    with running_head(num_cpus=4, variables=s3_variables(s3_endpoint)) as started:
        yield started


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, s3_endpoint: str, tmp_path: Path) -> str:
    """A storage root that the cluster can reach, of each kind."""
    if request.param == "folder":
        return str(tmp_path)
    return f"s3://{bucket_of(s3_endpoint)}/pipelines"


def test_submitted_job_gives_the_same_detections(
    head: Head, tfn: Tfn, undisturbed: FinishedRun, root: str
) -> None:
    client = Tfn(tfn.folder, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})
    printed = client("submit", TINY, "--address", head.address, "--root", root)
    assert "submitted tfn-tiny-" in printed
    assert printed_hash(printed) == undisturbed.detections_hash
    assert f"report: {root}/stages/report/" in printed
