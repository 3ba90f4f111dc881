"""Jobs sent to a real Ray head with token authentication, in a process tree of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_head import TOKEN, Head, running_head
from tests.s3_server import free_port
from tfn_jobs import submit
from tfn_platform.errors import ResourceError


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as started:
        yield started


RUN = """
import os, sys
from pathlib import Path
folder = Path(os.environ["FOLDER"])
address = os.environ["ADDRESS"]
job = submit_job(os.environ["ENTRYPOINT"], address=address, name="Demo 1", working_dir=folder)
sys.exit(follow_job(job, address=address))
"""


@pytest.mark.cluster
def test_ships_code_and_spec_follows_the_log_and_passes_the_exit_code_on(
    head: Head, tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text("name: demo\n")
    program = (
        "import os, sys, time, tfn_platform, tfn_models, tfn_jobs;"
        "print('from', tfn_jobs.__file__); print('spec', open('spec.yaml').read());"
        "time.sleep(1); print('last line'); sys.exit(7)"
    )
    result = head.call(RUN, FOLDER=str(tmp_path), ENTRYPOINT=f'python -c "{program}"')
    assert result.returncode == 7, result.stdout + result.stderr
    assert "runtime_resources/py_modules_files" in result.stdout
    assert "spec name: demo" in result.stdout
    assert result.stdout.count("last line\n") == 1
    assert "failed: exit code 7" in result.stdout
    assert TOKEN not in result.stdout + result.stderr


@pytest.mark.cluster
def test_success_is_zero(head: Head, tmp_path: Path) -> None:
    result = head.call(RUN, FOLDER=str(tmp_path), ENTRYPOINT="echo done")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "submitted tfn-demo-1-" in result.stdout


@pytest.mark.cluster
def test_ctrl_c_leaves_the_job_running_and_stop_ends_it(head: Head, tmp_path: Path) -> None:
    code = f"import signal\nsignal.signal(signal.SIGALRM, signal.default_int_handler)\n{RUN}"
    code = code.replace("sys.exit(", "signal.alarm(4)\ncode = (") + (
        "\nprint('code', code, 'stopped', stop_job(job, address=address))"
        "\nprint('then', follow_job(job, address=address))"
    )
    result = head.call(code, FOLDER=str(tmp_path), ENTRYPOINT="echo begun; sleep 100")
    assert "begun" in result.stdout, result.stdout + result.stderr
    assert "tfn submit --follow tfn-demo-1-" in result.stdout
    assert "tfn submit --stop tfn-demo-1-" in result.stdout
    assert "code 130 stopped True" in result.stdout
    assert "stopped:" in result.stdout and "then 1" in result.stdout


@pytest.mark.cluster
@pytest.mark.parametrize(
    "environment", [{"RAY_AUTH_TOKEN": "wrong-token"}, {"RAY_AUTH_MODE": "disabled"}]
)
def test_refuses_a_wrong_or_missing_token(head: Head, environment: dict[str, str]) -> None:
    code = (
        "import os\nfrom tfn_platform.errors import ResourceError\n"
        "try: stop_job('x', address=os.environ['ADDRESS'])\n"
        "except ResourceError as error: print('refused:', error)"
    )
    result = head.call(code, **environment)
    assert "refused:" in result.stdout, result.stdout + result.stderr
    assert "RAY_AUTH_MODE=token" in result.stdout
    assert "wrong-token" not in result.stdout + result.stderr


def test_unreachable_address_is_named() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ResourceError, match=f"no Ray job server answers at {address}"):
        submit.stop_job("x", address=address)


def test_environment_does_not_replace_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's client lets RAY_ADDRESS win over its argument: the job went to another cluster."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(ResourceError, match="answers at http://127.0.0.1:2"):
        submit.stop_job("x", address="http://127.0.0.1:2")
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("root", ["results", "./results", "../results"])
def test_relative_root_is_refused(root: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        submit.submit_pipeline(tmp_path / "a.yaml", address="http://127.0.0.1:2", root=root)


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_address_must_be_a_url(address: str) -> None:
    with pytest.raises(ValueError, match="URL of the cluster's job server"):
        submit.stop_job("x", address=address)


def test_pipeline_command_and_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = tmp_path / "my demo.yaml"
    spec.write_text("name: demo\n")
    sent: dict[str, object] = {}

    def record(entrypoint: str, *, working_dir: Path, **rest: object) -> str:
        sent.update(rest, entrypoint=entrypoint, files=[p.name for p in working_dir.iterdir()])
        return "job-1"

    monkeypatch.setattr(submit, "submit_job", record)
    monkeypatch.setattr(submit, "follow_job", lambda job, *, address: 3)
    code = submit.submit_pipeline(
        spec,
        address="http://127.0.0.1:8265",
        root="s3://bucket/x",
        overrides=["bmns.0.num_bins=8"],
        env_vars={"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
    )
    assert code == 3
    assert sent["entrypoint"] == (
        "python -m tfn_jobs.cli run 'my demo.yaml' --root s3://bucket/x --address auto "
        "--set bmns.0.num_bins=8"
    )
    assert sent["files"] == ["my demo.yaml"]
    assert sent["env_vars"] == {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}
