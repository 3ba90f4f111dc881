"""Job: train all classifiers and BMNs, or all refiners, as one Ray Tune run (paper, 2.1 to 2.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfn_jobs.bmn_member import train_bmn
from tfn_jobs.classifier_member import train_classifier
from tfn_jobs.console import progress_bar
from tfn_jobs.member_data import MemberData
from tfn_jobs.member_specs import BmnSpec, ClassifierSpec, MemberSpec
from tfn_jobs.refiner_member import RefinerData, train_refiner
from tfn_jobs.reporting import OnMemberEpoch
from tfn_jobs.resources_spec import ResourcesSpec
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.sweep import Report, SweepMember, run_sweep
from tfn_platform.training import EpochReport, best_epoch


@dataclass(frozen=True)
class MemberTask:
    """A member's settings and the stage that its training commits."""

    spec: MemberSpec
    stage: Stage


def train_members(
    tasks: Sequence[MemberTask],
    data: MemberData | RefinerData,
    *,
    name: str,
    store: Store,
    resources: ResourcesSpec,
    on_epoch: OnMemberEpoch,
) -> None:
    """Train those that are not done yet, in parallel.

    Args:
        tasks: the members; refiners need RefinerData, the others MemberData.
        data: what they all read.
        name: of the Tune run.
        store: the storage root.
        resources: what a trial occupies.
        on_epoch: told of each epoch.
    """
    missing = [task for task in tasks if not task.stage.folder(store).is_done]
    if not missing:
        return
    members = [
        SweepMember(task.stage, task, resources.member_cpus, resources.member_gpus)
        for task in missing
    ]
    total = sum(task.spec.training.num_epochs for task in missing)
    seen: set[tuple[str, int]] = set()
    with progress_bar(total, what=name, unit="epoch") as bar:

        def advance(member: str, report: EpochReport) -> None:
            # A trial that was restarted tells of its earlier epochs again.
            bar.update((member, report.epoch) not in seen)
            seen.add((member, report.epoch))
            loss = report.metrics.get("validation_loss", report.metrics["training_loss"])
            bar.set_postfix_str(f"{member} loss {loss:.3f}")
            on_epoch(member, report)

        run_sweep(
            members,
            name=name,
            store=store,
            shared=data,
            train_member=train_one,
            on_epoch=advance,
        )


def train_one(
    task: MemberTask, data: Any, folder: StageFolder, report: Report
) -> Mapping[str, float]:
    """Train one member in a worker; return the metrics of its best epoch for the commit."""
    spec, stage = task.spec, task.stage
    if isinstance(spec, ClassifierSpec):
        history = train_classifier(spec, stage, data, folder, on_epoch=report)
    elif isinstance(spec, BmnSpec):
        history = train_bmn(spec, stage, data, folder, on_epoch=report)
    else:
        history = train_refiner(spec, stage, data, folder, on_epoch=report)
    folder.store.delete_file(folder.training_state)
    best = best_epoch(history)
    return {"best_epoch": best.epoch, **best.metrics} if best else {}
