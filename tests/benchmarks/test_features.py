"""That both sides read the same, and that the command runs; no time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_command(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.features", "--videos", "70", "--clips", "3"]
    command += ["--feature-dim", "8", "--repeats", "1", "--latency-ms", "0"]
    command += ["--out", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "figures.json").read_text())
    assert len(content["figures"]) == 9 and len(content["compression"]) == 4
    assert all(figure["ratio"] > 0 for figure in content["figures"])
    assert "later shuffled epoch" in done.stdout and "9 shuffled epochs" in done.stdout
