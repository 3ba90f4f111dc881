"""A pipeline whose stages are all made: what it publishes and prints, once and again."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.tfn_jobs.conftest import MakeSpec
from tfn_jobs import run as run_module
from tfn_jobs.detection_tables import DETECTIONS_FILE
from tfn_jobs.evaluation import FINAL_ROW, Evaluation, EvaluationRow, FusionWeights
from tfn_jobs.pipeline import Pipeline
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.report import REPORT_FILE
from tfn_jobs.run import run_and_publish, say_results, say_status
from tfn_platform.errors import DataError, StageError
from tfn_platform.store import Store
from tfn_platform.tracking import default_tracking_uri

MEMBERS = {"classifier": ["mean", "other"], "bmn": ["d8", "d12"], "refiner": ["base", "full"]}
LOST = "could not be logged"


def make_everything(spec: PipelineSpec, store: Store) -> Pipeline:
    """Commit all stages, with just the files that are shown and published."""
    pipeline = Pipeline.open(spec, store)
    stages = pipeline.stages
    members = [f"{family}/{name}" for family, names in MEMBERS.items() for name in names]
    rows = [(name, name.partition("/")[0]) for name in members]
    rows += [(FINAL_ROW, "fusion"), ("untrained", "baseline")]
    evaluation = Evaluation(
        subset="validation",
        num_videos=6,
        num_missing=0,
        tious=[0.5, 0.75],
        class_names=["jump", "run"],
        confusion=[[2, 1], [0, 3]],
        rows=[
            EvaluationRow(
                name=name,
                family=family,  # type: ignore[arg-type]
                stage_key="0",
                metrics={"map_average": 0.25, "map_at_0.50": 0.5, "ar_at_100": 0.75},
                average_recall=[0.25, 0.5],
                average_precision=[0.5, 0.25],
                class_average_precision=[0.5, 0.0],
            )
            for name, family in rows
        ],
        weights=[
            FusionWeights(title="class scores", members=["mean", "other"], weights=[0.3, 0.7])
        ],
        detections_hash="0123456789abcdef",
    )
    for stage in stages.until("report"):
        folder = stage.folder(store)
        if stage.name.partition("/")[0] in ("finetune", *MEMBERS):
            epochs = [{"epoch": n, "metrics": {"training_loss": 2.0 - n}} for n in range(2)]
            store.write_json(folder.history, epochs)
            store.write_bytes(folder.weights, b"weights")
        stage.commit(store, seconds=1.0)
    store.write_json(stages.evaluate.folder(store).metrics, evaluation.model_dump(mode="json"))
    store.write_bytes(stages.report.folder(store).file(REPORT_FILE), b"<html></html>")
    store.write_bytes(stages.fuse.folder(store).file(DETECTIONS_FILE), b"{}")
    return pipeline


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray must not be asked for when nothing is to be run")

    monkeypatch.setattr("tfn_jobs.pipeline.connection", fail)


@pytest.fixture(scope="module")
def published_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the file: making one takes seconds."""
    return tmp_path_factory.mktemp("published")


@pytest.fixture
def run(no_ray: None) -> Callable[[Pipeline], None]:
    return lambda pipeline: run_and_publish(pipeline, address=None, spec_path=Path("small.yaml"))


def runs_of(store: Store, experiment: str) -> list[Run]:
    client = MlflowClient(default_tracking_uri(store))
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def test_runs_are_published_once(
    published_root: Path,
    make_spec: MakeSpec,
    run: Callable[[Pipeline], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Store.open(str(published_root))
    pipeline = make_everything(make_spec(), store)
    run(pipeline)
    printed = capsys.readouterr().out
    assert "nothing to run: all 16 stages are made" in printed.replace("\n", " ")
    assert "detections hash: 0123456789abcdef" in printed
    assert "report.html" in printed and "fusion/detections" in printed
    runs = {entry.info.run_name: entry for entry in runs_of(store, "small")}
    members = {f"{family}/{name}" for family, names in MEMBERS.items() for name in names}
    assert set(runs) == {"small", "finetune", "untrained", FINAL_ROW, *members}
    assert all(entry.info.status == "FINISHED" for entry in runs.values())
    assert runs["bmn/d8"].data.params["num_bins"] == "8"
    assert runs["bmn/d8"].data.metrics["map_average"] == 0.25
    assert runs["bmn/d8"].data.metrics["training_loss"] == 1.0
    parent = runs["small"].info.run_id
    nested = [entry for name, entry in runs.items() if name != "small"]
    assert all(entry.data.tags["mlflow.parentRunId"] == parent for entry in nested)
    assert runs[FINAL_ROW].data.params["weight.class scores.other"] == "0.7"
    assert runs["small"].data.tags["tfn.detections_hash"] == "0123456789abcdef"

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("what is published must not be published again")

    monkeypatch.setattr(run_module, "_run_tracked", fail)
    run(pipeline)
    assert "detections hash: 0123456789abcdef" in capsys.readouterr().out


def test_publishing_again_adds_nothing(
    published_root: Path, make_spec: MakeSpec, run: Callable[[Pipeline], None]
) -> None:
    """As after a crash between the last run and the note that all are published."""
    store = Store.open(str(published_root))
    spec = make_spec(tracking={"experiment": "again"})
    pipeline = make_everything(spec, store)
    store.delete_file("pipelines/small.published.json")
    run(pipeline)
    before = {entry.info.run_id: entry.data.metrics for entry in runs_of(store, "again")}
    store.delete_file("pipelines/small.published.json")
    run(pipeline)
    assert {entry.info.run_id: entry.data.metrics for entry in runs_of(store, "again")} == before
    assert len(before) == 10


def test_an_absent_server_costs_a_warning(
    store: Store,
    make_spec: MakeSpec,
    run: Callable[[Pipeline], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Nothing listens on port 1.
    pipeline = make_everything(make_spec(tracking={"uri": "http://127.0.0.1:1"}), store)
    with caplog.at_level(logging.WARNING):
        run(pipeline)
    warnings = [record.getMessage() for record in caplog.records if LOST in record.getMessage()]
    assert len(warnings) == 2
    printed = capsys.readouterr().out
    assert "detections hash: 0123456789abcdef" in printed and "report.html" in printed
    # A later run publishes: nothing says that it has been done.
    assert not store.exists("pipelines/small.published.json")


def test_results_need_a_finished_pipeline(store: Store, make_spec: MakeSpec) -> None:
    with pytest.raises(StageError, match=r"'small' has not finished .* `tfn run` finishes it"):
        say_results(Pipeline.open(make_spec(), store))


def test_status_says_what_is_made(
    store: Store, make_spec: MakeSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = Pipeline.open(make_spec(), store)
    pipeline.stages.prepare.commit(store, seconds=7.0, videos=12)
    say_status(pipeline)
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "made" in lines["prepare"] and "videos 12" in lines["prepare"]
    assert "to run" in lines["fuse"] and "never made" in lines["fuse"]


def test_status_reads_no_checkpoint(
    store: Store, make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It once loaded all its weights; and said nothing where they did not fit."""
    (tmp_path / "weights.pth").write_bytes(b"no checkpoint at all")
    backbone = {"architecture": "slowfast_tiny", "checkpoint": str(tmp_path / "weights.pth")}
    pipeline = Pipeline.open(make_spec(backbone=backbone), store)
    say_status(pipeline)
    assert "to run" in capsys.readouterr().out
    with pytest.raises(DataError, match="not a readable pickle"):
        pipeline.plan()
