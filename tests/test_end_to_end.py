"""The tiny pipeline through the `tfn` command: what it makes, and what it does not make twice."""

from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tests.tfn_process import TINY, FinishedRun, Tfn, planned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MEMBERS = [
    "classifier/mean",
    "classifier/transformer_bnm",
    "bmn/d8",
    "bmn/d12_lstm1",
    "refiner/base",
    "refiner/full",
]
STAGES = [
    "synthesize",
    "prepare",
    "finetune",
    "extract",
    *MEMBERS[:2],
    "classifier/untrained",
    *MEMBERS[2:4],
    "bmn/untrained",
    "propose",
    *MEMBERS[4:],
    "fuse",
    "evaluate",
    "report",
]
CURVES = {"learning_rate", "training_loss", "validation_loss"}
CLASSIFICATION = {"top1", "top5"}
PROPOSALS = {"ar_at_1", "ar_at_5", "ar_at_10", "ar_at_100", "auc"}
DETECTION = {"map_average", "map_at_0.50", "map_at_0.75", "map_at_0.95"}
FAMILY_METRICS = {
    "classifier": CURVES | CLASSIFICATION | DETECTION,
    "bmn": CURVES | PROPOSALS | DETECTION,
    "refiner": CURVES | PROPOSALS | DETECTION,
}
FUSION_ROWS = ["fusion/classifiers", "fusion/proposals", "fusion/detections"]


def test_first_run_makes_every_stage(undisturbed: FinishedRun) -> None:
    assert planned(undisturbed.printed, "run") == STAGES
    assert planned(undisturbed.printed, "made") == []
    for stage in STAGES:
        assert len(list((undisturbed.root / "stages" / stage).glob("*/done.json"))) == 1, stage
    assert not list(undisturbed.root.rglob("training_state.pt"))


def test_damaged_video_is_in_quarantine(undisturbed: FinishedRun, tfn: Tfn) -> None:
    status = tfn("status", TINY, "--root", undisturbed.root)
    assert "quarantined 1, videos 15" in status


def test_results_are_printed(undisturbed: FinishedRun) -> None:
    for row in [*MEMBERS, *FUSION_ROWS, "untrained"]:
        assert f" {row} " in undisturbed.printed
    (report,) = (undisturbed.root / "stages" / "report").glob("*/report.html")
    assert f"report: {report}" in undisturbed.printed
    page = report.read_text()
    assert undisturbed.detections_hash in page
    assert 'src="http' not in page and 'href="http' not in page


def test_mlflow_has_a_parent_and_a_nested_run_a_member(undisturbed: FinishedRun) -> None:
    client = MlflowClient(f"sqlite:///{undisturbed.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id]))
    (parent,) = [run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    nested = {run.info.run_name: run for run in runs if run is not parent}
    assert len(nested) == len(runs) - 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {r.data.tags[MLFLOW_PARENT_RUN_ID] for r in nested.values()} == {parent.info.run_id}
    assert {"finetune", *MEMBERS, *FUSION_ROWS, "untrained"} <= set(nested)
    for name in MEMBERS:
        run, family = nested[name], name.partition("/")[0]
        assert run.data.tags["tfn.family"] == family
        assert FAMILY_METRICS[family] <= set(run.data.metrics), name
        curve = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [point.step for point in curve] == [0, 1]
        assert [file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")]
    assert CLASSIFICATION | PROPOSALS | DETECTION <= set(parent.data.metrics)
    assert parent.data.tags["tfn.detections_hash"] == undisturbed.detections_hash


def test_second_run_executes_nothing(undisturbed: FinishedRun, tfn: Tfn) -> None:
    before = (tfn.num_ray_starts, modification_times(undisturbed.root))
    printed = tfn("run", TINY, "--root", undisturbed.root)
    assert f"nothing to run: all {len(STAGES)} stages are made" in printed
    assert f"detections hash: {undisturbed.detections_hash}\n" in printed
    assert (tfn.num_ray_starts, modification_times(undisturbed.root)) == before
    assert tfn.num_ray_starts > 0


def modification_times(root: Path) -> dict[Path, int]:
    """Of all files that stages have made."""
    files = (path for path in (root / "stages").rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files}


def test_plan_after_a_change_of_one_bmn(undisturbed: FinishedRun, tfn: Tfn) -> None:
    change = ["--set", "bmns.d12_lstm1.base_channels=20"]
    printed = tfn("plan", TINY, "--root", undisturbed.root, *change)
    descendants = ["propose", "refiner/base", "refiner/full", "fuse", "evaluate", "report"]
    assert planned(printed, "run") == ["bmn/d12_lstm1", *descendants]
    assert planned(printed, "made") == [
        stage for stage in STAGES if stage not in ("bmn/d12_lstm1", *descendants)
    ]
    assert "settings changed base_channels: 16 → 20" in printed
    assert "new input: bmn/d12_lstm1" in printed


def test_plan_names_nothing_when_all_is_made(undisturbed: FinishedRun, tfn: Tfn) -> None:
    printed = tfn("plan", TINY, "--root", undisturbed.root)
    assert planned(printed, "made") == STAGES
    assert f"0 of {len(STAGES)} stages would run" in printed
