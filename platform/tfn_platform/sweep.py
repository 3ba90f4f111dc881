"""Train a list of members as the trials of one Ray Tune run; each commits itself when it is done.

A member keeps its state in its own stage folder, so it continues after whatever killed it: its
worker (Tune restarts the trial), the driver (the next run starts a trial for each member that is
not committed), or both.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from tfn_platform.cluster import require_resources
from tfn_platform.errors import StageError
from tfn_platform.stages import Stage, run_stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.training import EpochReport

MAX_FAILURES = 2

Report = Callable[[EpochReport], None]


@dataclass(frozen=True)
class SweepMember:
    """One member: the stage that it commits, its settings, and what one trial of it occupies."""

    stage: Stage
    settings: Any
    num_cpus: float
    num_gpus: float


TrainMember = Callable[[Any, Any, StageFolder, Report], Mapping[str, Any]]
"""(settings, shared data, folder, report) -> figures for the commit."""


def run_sweep(
    members: Sequence[SweepMember],
    *,
    name: str,
    store: Store,
    shared: Any,
    train_member: TrainMember,
    on_epoch: Callable[[str, EpochReport], None],
) -> None:
    """Train all members in parallel, as far as the cluster's resources go.

    Args:
        members: those that are not done yet.
        name: of the Tune run, under ``tune/`` in the storage root.
        store: the storage root.
        shared: what all members read; put once into the object store.
        train_member: trains one; runs in a worker.
        on_epoch: called in this process with a member's stage name and the figures of an epoch.

    Raises:
        ResourceError: a member asks for more than any machine of the cluster has.
        StageError: some members failed for good; the others are committed nevertheless.
    """
    for member in members:
        require_resources(member.num_cpus, member.num_gpus, purpose=f"member {member.stage.name}")
    by_name = {member.stage.name: member for member in members}
    reference = ray.put(shared)

    def trial(config: dict[str, Any]) -> None:
        member = by_name[config["member"]]
        data = ray.get(reference)
        run_stage(
            member.stage,
            store,
            lambda folder: train_member(member.settings, data, folder, _report_to_tune),
        )

    tuner = tune.Tuner(
        tune.with_resources(trial, lambda config: _resources(by_name[config["member"]])),
        param_space={"member": tune.grid_search(list(by_name))},
        tune_config=tune.TuneConfig(
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            # Starting a process takes longer than a small member. All that a member leaves behind
            # in its process is the state of torch's generators, and each one seeds them first.
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"{name}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}",
            storage_path=store.path("tune"),
            storage_filesystem=store.filesystem,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_Listener(on_epoch)],
            verbose=0,
        ),
    )
    errors = tuner.fit().errors
    _require_all_done(members, store, errors)


def _require_all_done(
    members: Sequence[SweepMember], store: Store, errors: Sequence[BaseException]
) -> None:
    failed = [member for member in members if not member.stage.folder(store).is_done]
    if failed:
        causes = "\n".join(str(error).strip() for error in errors)
        names = ", ".join(member.stage.name for member in failed)
        raise StageError(f"{len(failed)} of {len(members)} members failed: {names}\n{causes}")


def _report_to_tune(report: EpochReport) -> None:
    tune.report({"epoch": report.epoch, "metrics": report.metrics})


def _resources(member: SweepMember) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"CPU": member.num_cpus, "GPU": member.num_gpus}])


def _trial_name(trial: Trial) -> str:
    return str(trial.config["member"]).replace("/", "-")


class _Listener(tune.Callback):
    """Hands each reported epoch to a function of the driver."""

    def __init__(self, on_epoch: Callable[[str, EpochReport], None]) -> None:
        self._on_epoch = on_epoch

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        report = EpochReport(int(result["epoch"]), dict(result["metrics"]))
        self._on_epoch(trial.config["member"], report)
