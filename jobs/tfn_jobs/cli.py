"""The `tfn` command.

Heavy libraries are imported by the commands that need them, so that help is instant.
"""

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfn_platform.errors import TfnError

if TYPE_CHECKING:
    from tfn_jobs.pipeline import Pipeline

DEFAULT_ROOT = ".tfn"
USER_ERROR, FAILURE = 2, 1

app = typer.Typer(
    name="tfn",
    help="Temporal action localization as one pipeline: "
    "from raw videos to a fused, compared ensemble.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
features_app = typer.Typer(help="Look at features.", no_args_is_help=True)
app.add_typer(features_app, name="features")

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The job spec, a YAML file.")]
Root = Annotated[
    str,
    typer.Option(
        "--root",
        envvar="TFN_ROOT",
        help="Storage root: a folder, s3://… or gs://…. Everything that is made lies below it.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH.TO.FIELD=VALUE",
        help="Change a setting of the spec, checked like the YAML; "
        "members by name: bmns.d32.num_bins=48.",
    ),
]


class Task(StrEnum):
    """What `tfn evaluate` scores."""

    DETECTION = "detection"
    PROPOSALS = "proposals"
    CLASSIFICATION = "classification"


@app.command()
def run(
    spec: SpecPath,
    root: Root = DEFAULT_ROOT,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, such as `auto`. Without it Ray starts here."),
    ] = None,
) -> None:
    """Run a pipeline here, or on a running cluster; what is already made is not made again."""
    from tfn_jobs.run import run_and_publish

    run_and_publish(_open(spec, root, overrides), address=address, spec_path=spec)


@app.command()
def plan(spec: SpecPath, root: Root = DEFAULT_ROOT, overrides: Overrides = None) -> None:
    """Say what would run, what is already made, and why."""
    from tfn_jobs.pipeline import say_plan

    planned = _open(spec, root, overrides).plan()
    say_plan(planned)
    todo = sum(not entry.is_done for entry in planned)
    typer.echo(f"{todo} of {len(planned)} stages would run")


@app.command()
def status(spec: SpecPath, root: Root = DEFAULT_ROOT, overrides: Overrides = None) -> None:
    """Say where a pipeline stands: what is made, how long it took, and what it measured."""
    from tfn_jobs.run import say_status

    say_status(_open(spec, root, overrides))


@app.command()
def report(spec: SpecPath, root: Root = DEFAULT_ROOT, overrides: Overrides = None) -> None:
    """Print the result table of a finished pipeline and where its report lies."""
    from tfn_jobs.run import say_results

    say_results(_open(spec, root, overrides))


@app.command()
def ui(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="Take tracking.uri from this spec.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000,
) -> None:
    """Open the MLflow UI on the runs of a storage root, reachable from this machine only."""
    from tfn_jobs.pipeline_spec import PipelineSpec
    from tfn_platform.spec import load_spec
    from tfn_platform.store import Store
    from tfn_platform.tracking import default_tracking_uri

    uri = load_spec(PipelineSpec, spec).tracking.uri if spec else None
    uri = uri or default_tracking_uri(Store.open(root))
    typer.echo(f"MLflow on {uri}: http://127.0.0.1:{port} (end with Ctrl-C)")
    typer.echo("in an experiment's runs, the chart button compares all members by each metric")
    command = ["mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, "-m", *command, "--port", str(port)])


@app.command()
def submit(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="The job spec to send.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="The cluster's job server.")
    ] = "http://127.0.0.1:8265",
    root: Root = DEFAULT_ROOT,
    overrides: Overrides = None,
    follow: Annotated[
        str | None, typer.Option(metavar="ID", help="Follow the log of a job sent before.")
    ] = None,
    stop: Annotated[str | None, typer.Option(metavar="ID", help="Stop a job.")] = None,
) -> None:
    """Send a pipeline to a cluster as a job, follow its log, and exit with its exit code."""
    from tfn_jobs.submit import follow_job, stop_job, submit_pipeline

    if stop:
        stopped = stop_job(stop, address=address)
        typer.echo(f"{stop} {'is being stopped' if stopped else 'had ended already'}")
        return
    if follow:
        raise typer.Exit(follow_job(follow, address=address))
    if spec is None:
        raise typer.BadParameter("name a SPEC to send, or use --follow ID or --stop ID")
    _check_before_sending(spec, overrides)
    raise typer.Exit(submit_pipeline(spec, address=address, root=root, overrides=overrides or []))


@app.command()
def evaluate(
    ground_truth: Annotated[Path, typer.Option(help="Annotations, ActivityNet layout.")],
    predictions: Annotated[Path, typer.Option(help="Results, ActivityNet layout.")],
    task: Annotated[Task, typer.Option(help="What the predictions are.")],
    subset: Annotated[
        str | None, typer.Option(help="The annotated subset to score; needed if there are several.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here, too.")
    ] = None,
) -> None:
    """Score prediction files from anywhere; the figures are those of the official toolkit."""
    import json

    from tfn_jobs.evaluate_files import evaluate_files

    result = evaluate_files(ground_truth, predictions, task=task.value, subset=subset)
    for name, value in result.rows():
        typer.echo(f"{name:<24} {value}")
    if json_path:
        json_path.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")


@app.command("import-features")
def import_features(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The import spec, a YAML file.")],
    root: Root = DEFAULT_ROOT,
    overrides: Overrides = None,
) -> None:
    """Turn others' features (npy, npz, pt, pkl, csv, h5) into FEATURES, if they are as declared."""
    from tfn_jobs.import_features import import_features as run_import
    from tfn_jobs.import_spec import ImportSpec
    from tfn_platform.spec import load_spec
    from tfn_platform.store import Store

    checked = load_spec(ImportSpec, spec, overrides=overrides or [])
    made = run_import(checked, Store.open(root))
    figures = ", ".join(f"{value} {name}" for name, value in made.figures.items())
    typer.echo(f"{'imported' if made.is_new else 'imported before'}: {figures}")
    typer.echo(f"look at them: tfn features inspect {made.folder.uri}")


@features_app.command("inspect")
def features_inspect(
    uri: Annotated[str, typer.Argument(metavar="URI", help="Folder ROOT/stages/NAME/KEY.")],
    video: Annotated[str | None, typer.Option(help="Look at this video alone.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the video here: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Print how features were made, counts, statistics and gaps; draw those of one video."""
    from tfn_jobs.inspect_features import inspect_features

    inspect_features(uri, video_id=video, picture=picture)


@data_app.command("synthesize")
def data_synthesize(
    folder: Annotated[Path, typer.Argument(help="Folder to fill; must be new or empty.")],
    num_training: Annotated[int, typer.Option(min=0, help="Training videos.")] = 360,
    num_validation: Annotated[int, typer.Option(min=0, help="Validation videos.")] = 60,
    damaged_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of spoilt files.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every byte.")] = 0,
) -> None:
    """Render a data set of six motions that no single frame tells apart."""
    from tfn_platform.datasets.synthetic import SyntheticConfig, write_synthetic

    if folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} is not empty; name a new folder")
    config = SyntheticConfig(
        num_training=num_training,
        num_validation=num_validation,
        damaged_share=damaged_share,
        seed=seed,
    )
    annotations = write_synthetic(config, folder)
    typer.echo(f"{config.num_videos} videos in {folder / 'videos'}, annotations in {annotations}")


def _open(spec_path: Path, root: str, overrides: list[str] | None) -> "Pipeline":
    """Check the spec and the data set; nothing expensive has started when this fails."""
    from tfn_jobs.pipeline import Pipeline
    from tfn_jobs.pipeline_spec import PipelineSpec
    from tfn_platform.spec import load_spec
    from tfn_platform.store import Store

    spec = load_spec(PipelineSpec, spec_path, overrides=overrides or [])
    return Pipeline.open(spec, Store.open(root))


def _check_before_sending(spec_path: Path, overrides: list[str] | None) -> None:
    """A mistake in the spec is told here, not in the log of a job on a cluster."""
    from tfn_jobs.pipeline_spec import PipelineSpec
    from tfn_jobs.spec_fields import RUNS_ELSEWHERE
    from tfn_platform.spec import load_spec

    context = {RUNS_ELSEWHERE: True}
    load_spec(PipelineSpec, spec_path, overrides=overrides or [], context=context)


def main() -> None:
    """Run the command; an error that the user can mend is printed without a traceback.

    Exit codes: 0 done, 1 failed, 2 asked for something impossible.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except TfnError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(USER_ERROR if isinstance(error, ValueError) else FAILURE)


if __name__ == "__main__":
    main()
