"""`cluster.yaml` is what Ray accepts, and opens nothing to the world."""

import copy
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.aws import config as aws
from ray.autoscaler._private.util import prepare_config, validate_config


@pytest.fixture
def cluster(repository: Path) -> dict[str, Any]:
    """The cluster as Ray sees it: its defaults filled in, its validation passed."""
    raw = yaml.safe_load((repository / "cluster.yaml").read_text())
    prepared: dict[str, Any] = prepare_config(raw)
    validate_config(prepared)
    return prepared


def ray_start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_nothing_listens_on_all_interfaces(cluster: dict[str, Any]) -> None:
    """Ray's own default command binds the dashboard, which runs any code, to 0.0.0.0."""
    assert "0.0.0.0" not in str(cluster)
    head = [command for command in ray_start_commands(cluster) if "--head" in command]
    assert len(head) == 1
    assert "--dashboard-host=127.0.0.1" in head[0]


def test_every_node_demands_the_token(cluster: dict[str, Any]) -> None:
    """`ray start` without a token only warns and runs open."""
    commands = ray_start_commands(cluster)
    assert len(commands) == 2
    for command in commands:
        assert "RAY_AUTH_MODE=token ray start" in command
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"


def test_ray_adds_no_firewall_rule(
    cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray opens port 22 to 0.0.0.0/0 in every group that it makes or finds empty."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray wanted to change a security group")

    monkeypatch.setattr(aws, "_upsert_security_groups", refuse)
    assert aws._configure_security_group(copy.deepcopy(cluster)) == cluster
    assert "security_group" not in cluster["provider"]

    del cluster["available_node_types"]["gpu"]["node_config"]["SecurityGroupIds"]
    with pytest.raises(AssertionError, match="change a security group"):
        aws._configure_security_group(cluster)


def test_node_types(cluster: dict[str, Any]) -> None:
    nodes = cluster["available_node_types"]
    assert set(nodes) == {"head", "decode", "gpu"}
    assert cluster["head_node_type"] == "head"
    assert nodes["head"]["resources"] == {"CPU": 0}
    assert any("--head --num-cpus=0" in command for command in ray_start_commands(cluster))
    # With no worker up yet, a job would be told that the cluster has no CPU.
    assert any("TFN_CLUSTER_GROWS=1" in command for command in ray_start_commands(cluster))
    assert nodes["decode"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    for name in ("decode", "gpu"):
        assert nodes[name]["min_workers"] == 0
        assert nodes[name]["max_workers"] > 0
    assert cluster["max_workers"] == sum(nodes[n]["max_workers"] for n in ("decode", "gpu"))
    assert cluster["docker"] == {}


def test_files_that_the_nodes_get_exist(cluster: dict[str, Any], repository: Path) -> None:
    for local in cluster["file_mounts"].values():
        assert local.startswith("~") or (repository / local).is_file()


def test_setup_reads_the_dependencies_of_the_project(
    cluster: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    """Run the command as a node's shell would, with this Python in the place of the node's."""
    commands = [command for command in cluster["setup_commands"] if "tomllib" in command]
    assert len(commands) == 1
    assert any("--requirement ~/tfn-setup/requirements.txt" in c for c in cluster["setup_commands"])
    (tmp_path / "tfn-setup").mkdir()
    shutil.copy(repository / "pyproject.toml", tmp_path / "tfn-setup")
    python = tmp_path / "tfn-python" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-c", commands[0]], env=environment, check=True)
    written = (tmp_path / "tfn-setup" / "requirements.txt").read_text().splitlines()
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert written == project["dependencies"]
