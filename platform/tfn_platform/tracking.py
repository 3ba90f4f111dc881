"""MLflow: one parent run a pipeline, one nested run a member, the same metric names everywhere.

Only the driver writes, so that a SQLite database has one writer. Runs are found again by their
tags: whatever is repeated after a crash goes on in the run that is already there. A tracking server
that is away costs a warning, never the work: `publish` in the jobs fills in what is missing from
the stage folders.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# MLflow's own patience with a server that is away is minutes a call; it reads this when imported.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from matplotlib.figure import Figure  # noqa: E402
from mlflow.entities import Metric, Param, Run, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID  # noqa: E402

from tfn_platform.stages import Stage  # noqa: E402
from tfn_platform.store import Store  # noqa: E402
from tfn_platform.training import EpochReport  # noqa: E402

LOGGER = logging.getLogger(__name__)
KEY_TAG = "tfn.key"
MAX_PARAMETER_LENGTH = 500
MAX_PARAMETERS_PER_REQUEST = 100
PAUSE_SECONDS = 60.0
CURVE = "training_loss"  # what every training reports after each epoch
LATER = "a later run will fill it in"


def default_tracking_folder(store: Store) -> Path:
    """The storage root if it is a folder; else, in the home folder of who runs the driver."""
    folder = Path(store.root) if store.is_local else Path.home() / ".tfn"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def default_tracking_uri(store: Store) -> str:
    """A SQLite database, which needs no server."""
    return f"sqlite:///{default_tracking_folder(store) / 'mlflow.db'}"


@dataclass
class Tracking:
    """One pipeline's runs in MLflow."""

    client: MlflowClient
    experiment_id: str
    parent_run_id: str
    _runs: dict[str, "TrackedRun"] = field(default_factory=dict)

    @classmethod
    def open(
        cls, uri: str, *, experiment: str, artifacts: str, pipeline: str, key: str
    ) -> "Tracking":
        """Find or make the experiment and the parent run of a pipeline.

        Args:
            uri: of the tracking server or database.
            experiment: its name in MLflow.
            artifacts: URI of the folder for files, used when the experiment is made here.
            pipeline: the pipeline's name, which the parent run takes.
            key: hash of all that the pipeline is made of; a run with this key is continued.
        """
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        location = artifacts if uri.startswith("sqlite:") else None
        experiment_id = (
            found.experiment_id if found else _create_experiment(client, experiment, location)
        )
        run = _find_run(client, experiment_id, key, parent=None)
        if run is None:
            tags = {KEY_TAG: key, "tfn.stage": "pipeline", "tfn.family": "pipeline"}
            run = client.create_run(experiment_id, run_name=pipeline, tags=tags)
        return cls(client, experiment_id, run.info.run_id)

    @property
    def parent(self) -> "TrackedRun":
        """The parent run."""
        return TrackedRun(self.client, self.parent_run_id)

    def run(self, stage: Stage, *, family: str, settings: Mapping[str, Any]) -> "TrackedRun":
        """Find or make the nested run of a stage."""
        if stage.key not in self._runs:
            run = _find_run(self.client, self.experiment_id, stage.key, parent=self.parent_run_id)
            if run is None:
                run = self._create(stage, family=family)
            tracked = TrackedRun.reopen(self.client, run)
            tracked.log_parameters({"family": family, **settings})
            self._runs[stage.key] = tracked
        return self._runs[stage.key]

    def _create(self, stage: Stage, *, family: str) -> Run:
        tags = {
            KEY_TAG: stage.key,
            MLFLOW_PARENT_RUN_ID: self.parent_run_id,
            "tfn.stage": stage.name,
            "tfn.family": family,
            "tfn.spec_hash": stage.key,
        }
        return self.client.create_run(self.experiment_id, run_name=stage.name, tags=tags)


@dataclass
class TrackedRun:
    """One run; logging the same thing twice changes nothing."""

    client: MlflowClient
    run_id: str
    next_epoch: int = 0

    @classmethod
    def reopen(cls, client: MlflowClient, run: Run) -> "TrackedRun":
        """Continue a run after the last epoch that it holds."""
        logged = client.get_metric_history(run.info.run_id, CURVE)
        return cls(client, run.info.run_id, 1 + max((m.step for m in logged), default=-1))

    def log_epoch(self, report: EpochReport) -> None:
        """Add one point to each curve."""
        if report.epoch < self.next_epoch:
            return
        self._log(report.metrics, step=report.epoch)
        self.next_epoch = report.epoch + 1

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Set final figures."""
        known = self.client.get_run(self.run_id).data.metrics
        new = {name: value for name, value in metrics.items() if known.get(name) != float(value)}
        self._log(new, step=0)

    def log_parameters(self, settings: Mapping[str, Any]) -> None:
        """Set parameters, nested ones under dotted names; those that a run has never change."""
        known = self.client.get_run(self.run_id).data.params
        parameters = [
            Param(name, str(value)[:MAX_PARAMETER_LENGTH])
            for name, value in flatten(settings).items()
            if name not in known
        ]
        for start in range(0, len(parameters), MAX_PARAMETERS_PER_REQUEST):
            batch = parameters[start : start + MAX_PARAMETERS_PER_REQUEST]
            self.client.log_batch(self.run_id, params=batch)

    def log_figure(self, name: str, figure: Figure) -> None:
        """Keep a picture, under ``figures/``."""
        self.client.log_figure(self.run_id, figure, f"figures/{name}.png")

    def log_file(self, name: str, data: bytes, *, folder: str | None = None) -> None:
        """Keep a file."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(data)
            self.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def finish(self, *, succeeded: bool = True) -> None:
        """Mark the run as over."""
        self.client.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")

    @property
    def is_finished(self) -> bool:
        """Whether the run is marked as over and well."""
        return bool(self.client.get_run(self.run_id).info.status == "FINISHED")

    def _log(self, metrics: Mapping[str, float], *, step: int) -> None:
        now = time.time_ns() // 1_000_000
        entries = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=entries)


@contextmanager
def tolerate_absence(what: str) -> Iterator[None]:
    """Let the work go on when the tracking server is away: warn; a later publish fills in."""
    try:
        yield
    except (MlflowException, OSError) as error:
        LOGGER.warning("tracking: %s could not be logged (%s); %s", what, error, LATER)


class Patience:
    """Logs while the tracking server answers; once it does not, asks it again only after a while.

    Without this, each of many calls would hold up the training by the client's own time-outs.
    """

    def __init__(self, pause_seconds: float = PAUSE_SECONDS) -> None:
        """After a failure nothing is tried for `pause_seconds`."""
        self._pause_seconds = pause_seconds
        self._silent_until = 0.0

    def attempt(self, log: Callable[[], None], what: str) -> None:
        """Call `log`, or leave it out while the server is given time to come back."""
        if time.monotonic() < self._silent_until:
            return
        try:
            log()
        except (MlflowException, OSError) as error:
            self._silent_until = time.monotonic() + self._pause_seconds
            LOGGER.warning("tracking: %s could not be logged (%s); %s", what, error, LATER)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _create_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    # Without this tag the UI first shows its pages for language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    experiment_id: str = client.create_experiment(name, artifacts, tags=tags)
    return experiment_id


def _find_run(
    client: MlflowClient, experiment_id: str, key: str, *, parent: str | None
) -> Run | None:
    query = f"tags.`{KEY_TAG}` = '{key}'"
    if parent:
        query += f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    found = client.search_runs([experiment_id], query, max_results=1)
    return found[0] if found else None
