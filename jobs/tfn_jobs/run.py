"""`tfn run`, `status` and `report`: the pipeline, its runs in MLflow, and what the user is told."""

from pathlib import Path

from rich.table import Table

from tfn_jobs.console import CONSOLE, say
from tfn_jobs.pipeline import Pipeline, read_evaluation, run_pipeline
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.result_table import CONSOLE_COLUMNS, rows_for_console
from tfn_platform.errors import StageError
from tfn_platform.training import EpochReport


def run_and_publish(pipeline: Pipeline, *, address: str | None, spec_path: Path) -> None:
    """Run what is missing, put it into MLflow, and print the results."""
    if _is_published(pipeline):
        run_pipeline(pipeline, address=address, on_epoch=lambda name, report: None)
    else:
        _run_tracked(pipeline, address=address)
    if pipeline.spec.until == "report":
        say_results(pipeline)
        say(f"compare the members in MLflow: tfn ui {spec_path} --root {pipeline.store.root}")


def say_results(pipeline: Pipeline) -> None:
    """Print the result table, the hash of the detections, and where the report lies."""
    report = pipeline.stages.report.folder(pipeline.store)
    if not report.is_done:
        raise StageError(
            f"pipeline {pipeline.spec.name!r} has not finished in {pipeline.store.root}; "
            "`tfn run` finishes it, `tfn plan` says what is missing"
        )
    evaluation = read_evaluation(pipeline)
    table = Table(*CONSOLE_COLUMNS, title=f"{pipeline.spec.name} on {evaluation.subset}")
    for row in rows_for_console(evaluation):
        table.add_row(*row)
    CONSOLE.print(table)
    say(f"detections hash: {evaluation.detections_hash}")
    say(f"report: {report.store.uri(report.file('report.html'))}")


def say_status(pipeline: Pipeline) -> None:
    """One line a stage, with its seconds and its figures."""
    table = Table("stage", "state", "seconds", "figures", title=pipeline.spec.name)
    for entry in pipeline.survey():
        if not entry.is_done:
            table.add_row(entry.stage.name, "[yellow]to run[/yellow]", "", entry.reason)
            continue
        done = entry.stage.folder(pipeline.store).read_done()
        figures = ", ".join(f"{k} {_short(v)}" for k, v in list(done["figures"].items())[:6])
        table.add_row(entry.stage.name, "[green]made[/green]", f"{done['seconds']:.0f}", figures)
    CONSOLE.print(table)


def _run_tracked(pipeline: Pipeline, *, address: str | None) -> None:
    from tfn_jobs.publish import LiveCurves, open_tracking, publish, trained_stages
    from tfn_platform.tracking import Patience, tolerate_absence

    spec, stages, store = pipeline.spec, pipeline.stages, pipeline.store
    tracking = None
    with tolerate_absence("the pipeline"):
        tracking = open_tracking(spec, stages, store)
    patience = Patience()
    curves = LiveCurves(tracking, trained_stages(spec, stages)) if tracking else None

    def on_epoch(stage_name: str, report: EpochReport) -> None:
        if curves is not None and stage_name in curves.stage_names:
            patience.attempt(lambda: curves(stage_name, report), f"an epoch of {stage_name}")

    run_pipeline(pipeline, address=address, on_epoch=on_epoch)
    if spec.until != "report":
        return
    with tolerate_absence("the results"):
        tracking = tracking or open_tracking(spec, stages, store)
        publish(tracking, spec, stages, store)
        store.write_json(_publication(spec), _published_as(pipeline))


def _publication(spec: PipelineSpec) -> str:
    return f"pipelines/{spec.name}.published.json"


def _published_as(pipeline: Pipeline) -> dict[str, str]:
    """What a publication says of itself: which results, in which database."""
    from tfn_jobs.publish import tracking_uri

    return {"key": pipeline.stages.key, "uri": tracking_uri(pipeline.spec, pipeline.store)}


def _is_published(pipeline: Pipeline) -> bool:
    record = _publication(pipeline.spec)
    if not pipeline.store.exists(record):
        return False
    published = pipeline.store.read_json(record)
    uri = pipeline.spec.tracking.uri
    is_same = published["key"] == pipeline.stages.key
    return bool(is_same and (uri is None or published["uri"] == uri))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
