"""That both sides of every comparison agree, and that the command runs; no time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.bmn_step import training_step
from tests.benchmarks.dense_bmn import DenseBmn
from tests.benchmarks.measure import Comparison, compare
from tests.benchmarks.topics import TOPICS, comparisons
from tfn_models.bmn.model import BmnConfig, build_bmn

CPU = torch.device("cpu")
SMALL = BmnConfig(feature_dim=8, num_bins=14, base_channels=8, map_channels=(6, 10, 4))


def no_memory(side: str) -> int:
    """Memory is measured in other processes, which the last test starts."""
    return {"ours": 1, "textbook": 2}[side]


@pytest.mark.parametrize("topic", TOPICS)
def test_both_sides_agree(topic: str) -> None:
    for comparison in comparisons(topic, small=True, device=CPU):
        row = compare(comparison, device=CPU, repeats=1, extra_bytes=no_memory)
        assert row.goal > 1
        assert row.note


def test_the_dense_network_is_the_same_network() -> None:
    """In fp64, where no ReLU flips: outputs and every gradient of the input."""
    torch.manual_seed(0)
    model = build_bmn(SMALL).double()
    dense = DenseBmn(SMALL, model).double()
    # Its mask is made in single precision; in double both read at the very same positions.
    features = torch.randn(2, 14, 8, dtype=torch.float64, requires_grad=True)
    gradients = []
    for network in (model, dense):
        maps = network(features)
        total = maps.start.square().sum() + maps.end.square().sum()
        total = total + maps.classification.square().sum() + maps.regression.square().sum()
        gradients.append(torch.autograd.grad(total, features)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)


def test_a_step_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    step = training_step(build_bmn(SMALL), SMALL, batch_size=2, device=CPU)
    assert torch.equal(step(), step())


def test_sides_that_differ_are_refused() -> None:
    def differ(ours: object, textbook: object) -> None:
        assert ours == textbook, "not the same"

    comparison = Comparison("x", ours=lambda: 1, textbook=lambda: 2, check=differ, goal=2.0)
    with pytest.raises(AssertionError, match="not the same"):
        compare(comparison, device=CPU, repeats=1, extra_bytes=no_memory)


def test_time_of_a_share_counts_for_the_whole() -> None:
    comparison = Comparison(
        "x",
        ours=lambda: sum(range(10)),
        textbook=lambda: sum(range(100_000)),
        check=lambda ours, textbook: None,
        goal=2.0,
        textbook_share=0.25,
    )
    whole = compare(comparison, device=CPU, repeats=3, extra_bytes=no_memory)
    assert whole.ratio == whole.textbook_seconds / whole.our_seconds
    assert whole.textbook_share == 0.25 and whole.memory_ratio is None


@pytest.mark.slow
def test_the_command(repository: Path, tmp_path: Path) -> None:
    """Also with nothing but torch and numpy: no other package may be imported."""
    command = [sys.executable, "-c", WITHOUT_THE_REST, "--small", "--repeats", "1"]
    command += ["--throughput", "--out", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    step = figures["comparisons"][0]
    assert step["our_bytes"] >= 0 and step["textbook_bytes"] >= 0
    assert all(row["ratio"] > 0 for row in figures["comparisons"])
    assert {line["unit"] for line in figures["throughput"]} == {"videos/s", "TFLOP/s", "clips/s"}
    assert "BMN training step" in done.stdout


WITHOUT_THE_REST = """
import runpy, sys
for name in ("ray", "mlflow", "pyarrow", "pandas", "pydantic", "torchvision", "hypothesis", "av"):
    sys.modules[name] = None
sys.argv[0] = "tests.benchmarks"
runpy.run_module("tests.benchmarks", run_name="__main__")
"""
