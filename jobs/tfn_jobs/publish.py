"""Put what the stages have made into MLflow: curves, figures, weights, the report.

Doing it again changes nothing. Live curves are drawn while members train. This fills in whatever
they missed: members that an earlier run made, and epochs that a tracking server which was away did
not hear of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfn_jobs.detection_tables import DETECTIONS_FILE
from tfn_jobs.evaluation import FINAL_ROW, Evaluation, EvaluationRow
from tfn_jobs.figures import evaluation_figures
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.pipeline_stages import PipelineStages
from tfn_jobs.report import REPORT_FILE
from tfn_platform.history import read_history
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tracking import (
    TrackedRun,
    Tracking,
    default_tracking_folder,
    default_tracking_uri,
)
from tfn_platform.training import EpochReport

BACKBONE = "backbone"


@dataclass(frozen=True)
class TrainedStage:
    """A stage whose training has curves and weights."""

    stage: Stage
    family: str
    settings: Mapping[str, Any]


def tracking_uri(spec: PipelineSpec, store: Store) -> str:
    """Where the runs of a pipeline go."""
    return spec.tracking.uri or default_tracking_uri(store)


def open_tracking(spec: PipelineSpec, stages: PipelineStages, store: Store) -> Tracking:
    """Find or make the parent run of a pipeline."""
    return Tracking.open(
        tracking_uri(spec, store),
        experiment=spec.tracking.experiment or spec.name,
        artifacts=(default_tracking_folder(store) / "mlflow").as_uri(),
        pipeline=spec.name,
        key=stages.key,
    )


def trained_stages(spec: PipelineSpec, stages: PipelineStages) -> list[TrainedStage]:
    """The backbone and all members; the baselines of all families are one row of the evaluation."""
    backbone = TrainedStage(stages.finetune, BACKBONE, stages.finetune.settings)
    members = [
        TrainedStage(member.stage, member.stage.name.partition("/")[0], member.stage.settings)
        for member in stages.members
        if not member.is_baseline
    ]
    return [backbone, *members] if spec.backbone.finetune else members


class LiveCurves:
    """Draws each epoch's figures while a stage trains."""

    def __init__(self, tracking: Tracking, trained: list[TrainedStage]) -> None:
        """Know the stages by their names."""
        self._tracking = tracking
        self._by_name = {entry.stage.name: entry for entry in trained}

    @property
    def stage_names(self) -> set[str]:
        """The stages that have curves."""
        return set(self._by_name)

    def __call__(self, stage_name: str, report: EpochReport) -> None:
        """Add one epoch of one stage."""
        entry = self._by_name[stage_name]
        run = self._tracking.run(entry.stage, family=entry.family, settings=entry.settings)
        run.log_epoch(report)


def publish(tracking: Tracking, spec: PipelineSpec, stages: PipelineStages, store: Store) -> None:
    """Complete the parent run and one nested run for each member and each step of the fusion."""
    evaluation = read_evaluation(stages, store)
    for entry in trained_stages(spec, stages):
        run = tracking.run(entry.stage, family=entry.family, settings=entry.settings)
        if not run.is_finished:
            _publish_trained(run, entry, evaluation.row(entry.stage.name), store)
    members = {entry.stage.name for entry in trained_stages(spec, stages)}
    for row in evaluation.rows:
        if row.name not in members:
            _publish_row(tracking, row, evaluation, stages)
    _publish_parent(tracking.parent, spec, stages, evaluation, store)


def read_evaluation(stages: PipelineStages, store: Store) -> Evaluation:
    """What `evaluate` wrote."""
    return Evaluation.model_validate(store.read_json(stages.evaluate.folder(store).metrics))


def _publish_trained(
    run: TrackedRun, entry: TrainedStage, row: EvaluationRow | None, store: Store
) -> None:
    folder = entry.stage.folder(store)
    for report in read_history(folder):
        run.log_epoch(report)
    if row is not None:
        run.log_metrics(row.metrics)
    run.log_file("weights.pt", store.read_bytes(folder.weights), folder="checkpoint")
    run.finish()


def _publish_row(
    tracking: Tracking, row: EvaluationRow, evaluation: Evaluation, stages: PipelineStages
) -> None:
    """A step of the fusion, or the baseline: a run of its own, to compare with the members."""
    stage = Stage(row.name, {"of": row.stage_key}, (stages.evaluate,))
    weights = {
        f"weight.{entry.title}.{member}": round(weight, 4)
        for entry in evaluation.weights
        for member, weight in zip(entry.members, entry.weights, strict=True)
        if row.name == FINAL_ROW
    }
    run = tracking.run(stage, family=row.family, settings=weights)
    if not run.is_finished:
        run.log_metrics(row.metrics)
        run.finish()


def _publish_parent(
    run: TrackedRun,
    spec: PipelineSpec,
    stages: PipelineStages,
    evaluation: Evaluation,
    store: Store,
) -> None:
    if run.is_finished:
        return
    settings = spec.model_dump(mode="json", exclude={"classifiers", "bmns", "refiners"})
    run.log_parameters(settings)
    final = evaluation.row(FINAL_ROW)
    run.log_metrics(final.metrics if final else {})
    run.set_tags({"tfn.detections_hash": evaluation.detections_hash})
    for drawn in evaluation_figures(evaluation):
        run.log_figure(drawn.name, drawn.figure)
    report = stages.report.folder(store)
    run.log_file("report.html", store.read_bytes(report.file(REPORT_FILE)))
    fused = stages.fuse.folder(store)
    run.log_file("detections.json", store.read_bytes(fused.file(DETECTIONS_FILE)))
    run.finish()
