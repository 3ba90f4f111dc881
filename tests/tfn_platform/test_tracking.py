"""MLflow runs in a SQLite file: found again, never doubled."""

import logging
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tracking import (
    Patience,
    Tracking,
    default_tracking_uri,
    flatten,
    tolerate_absence,
)
from tfn_platform.training import EpochReport

STAGE = Stage("bmn/d32", {"num_bins": 32, "training": {"rate": 0.1}})
OTHER = Stage("bmn/d64", {"num_bins": 64})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the file: making one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def reopen(root: Path, experiment: str, *, key: str = "pipeline key") -> Tracking:
    """As another process would: nothing is remembered but what lies in the database."""
    return Tracking.open(
        default_tracking_uri(Store.open(str(root))),
        experiment=experiment,
        artifacts=f"file://{root}/mlflow",
        pipeline="demo",
        key=key,
    )


def open_run(tracking: Tracking, stage: Stage = STAGE) -> Any:
    return tracking.run(stage, family="bmn", settings=stage.settings)


def test_runs_are_found_again_instead_of_doubled(root: Path, experiment: str) -> None:
    first = reopen(root, experiment)
    runs = [open_run(first).run_id, open_run(first, OTHER).run_id]
    assert open_run(first).run_id == runs[0]
    second = reopen(root, experiment)
    assert second.parent_run_id == first.parent_run_id
    assert [open_run(second).run_id, open_run(second, OTHER).run_id] == runs
    stored = first.client.search_runs([first.experiment_id])
    assert {run.info.run_id for run in stored} == {first.parent_run_id, *runs}
    by_name = {run.info.run_name: run.data.tags for run in stored}
    assert set(by_name) == {"demo", "bmn/d32", "bmn/d64"}
    assert by_name["bmn/d32"]["mlflow.parentRunId"] == first.parent_run_id
    assert by_name["bmn/d32"]["tfn.stage"] == "bmn/d32"
    assert by_name["bmn/d32"]["tfn.family"] == "bmn"
    other_pipeline = reopen(root, experiment, key="another key")
    assert other_pipeline.parent_run_id != first.parent_run_id
    assert open_run(other_pipeline).run_id not in runs


def test_parameters_are_flat_and_never_change(root: Path, experiment: str) -> None:
    """A rerun with other resources ended in MLflow's error about changed parameters."""
    tracking = reopen(root, experiment)
    run = open_run(tracking)
    expected = {"family": "bmn", "num_bins": "32", "training.rate": "0.1"}
    assert tracking.client.get_run(run.run_id).data.params == expected
    run.log_parameters({"num_bins": 99, "new": [1, 2], "long": "x" * 9000})
    params = tracking.client.get_run(run.run_id).data.params
    assert params == expected | {"new": "[1, 2]", "long": "x" * 500}


def test_parameters_that_a_crash_left_out_are_filled_in(
    root: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", crash)
        with pytest.raises(KeyboardInterrupt):
            open_run(reopen(root, experiment))
    tracking = reopen(root, experiment)
    run = open_run(tracking)
    assert tracking.client.get_run(run.run_id).data.params["num_bins"] == "32"
    assert len(tracking.client.search_runs([tracking.experiment_id])) == 2


def test_more_parameters_than_one_request_takes(root: Path, experiment: str) -> None:
    tracking = reopen(root, experiment)
    tracking.parent.log_parameters({"inner": {f"p{i}": i for i in range(205)}})
    params = tracking.client.get_run(tracking.parent_run_id).data.params
    assert len(params) == 205
    assert params["inner.p204"] == "204"


def points(tracking: Tracking, run_id: str, metric: str) -> list[tuple[int, float]]:
    history = tracking.client.get_metric_history(run_id, metric)
    return [(point.step, point.value) for point in history]


def test_epochs_are_logged_once_also_by_a_later_process(root: Path, experiment: str) -> None:
    reports = [EpochReport(epoch, {"training_loss": 1 / (epoch + 1)}) for epoch in range(4)]
    tracking = reopen(root, experiment)
    run = open_run(tracking)
    for report in [*reports[:2], *reports[:2]]:
        run.log_epoch(report)
    tracking = reopen(root, experiment)
    run = open_run(tracking)
    for report in reports:
        run.log_epoch(report)
    assert points(tracking, run.run_id, "training_loss") == [
        (epoch, 1 / (epoch + 1)) for epoch in range(4)
    ]


def test_final_figures_are_set_once_and_can_change(root: Path, experiment: str) -> None:
    """Each repetition added another point to the same curve."""
    tracking = reopen(root, experiment)
    run = open_run(tracking)
    run.log_metrics({"map": 0.1, "auc": 3})
    run.log_metrics({"map": 0.1, "auc": 4})
    assert points(tracking, run.run_id, "map") == [(0, 0.1)]
    assert tracking.client.get_run(run.run_id).data.metrics["auc"] == 4.0


def test_figures_files_tags_and_status(root: Path, experiment: str) -> None:
    tracking = reopen(root, experiment)
    run = tracking.parent
    run.log_figure("curve", Figure())
    run.log_file("report.html", b"<p>")
    run.log_file("weights.pt", b"w", folder="checkpoint")
    run.set_tags({"tfn.detections_hash": "abc"})
    assert not run.is_finished
    run.finish()
    assert reopen(root, experiment).parent.is_finished
    folder = root / "mlflow" / run.run_id / "artifacts"
    assert (folder / "figures" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "report.html").read_bytes() == b"<p>"
    assert (folder / "checkpoint" / "weights.pt").read_bytes() == b"w"
    assert tracking.client.get_run(run.run_id).data.tags["tfn.detections_hash"] == "abc"
    run.finish(succeeded=False)
    assert not run.is_finished


def test_an_absent_server_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise MlflowException("no answer")

    with caplog.at_level(logging.WARNING), tolerate_absence("the report"):
        fail()
    assert [record.getMessage() for record in caplog.records] == [
        "tracking: the report could not be logged (no answer); a later run will fill it in"
    ]
    with pytest.raises(ZeroDivisionError), tolerate_absence("x"):
        raise ZeroDivisionError


def test_patience_leaves_calls_out_until_its_pause_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("tfn_platform.tracking.time.monotonic", lambda: now)
    calls: list[str] = []

    def fail() -> None:
        calls.append("failed")
        raise MlflowException("no answer")

    patience = Patience(pause_seconds=60)
    patience.attempt(fail, "an epoch")
    patience.attempt(lambda: calls.append("too early"), "an epoch")
    now += 61
    patience.attempt(lambda: calls.append("logged"), "an epoch")
    assert calls == ["failed", "logged"]
    assert len(caplog.records) == 1


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": [1]}, "e": None}, "f": {}}) == {
        "a": 1,
        "b.c.d": [1],
        "b.e": None,
    }


def test_the_database_of_a_remote_root_lies_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Store, "is_local", property(lambda _: False))
    uri = default_tracking_uri(Store("s3://bucket/x"))
    assert uri == f"sqlite:///{tmp_path}/home/.tfn/mlflow.db"
    assert (tmp_path / "home" / ".tfn").is_dir()
