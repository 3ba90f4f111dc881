"""The whole pipeline, in order: each step runs unless what it makes is already there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tfn_jobs.console import say
from tfn_jobs.data_location import DataLocation
from tfn_jobs.data_specs import SyntheticDataSpec
from tfn_jobs.evaluate import EvaluateJob, evaluate
from tfn_jobs.evaluation import Evaluation
from tfn_jobs.extract import ExtractJob, extract
from tfn_jobs.finetune import FinetuneJob, finetune
from tfn_jobs.fuse import FuseJob, fuse
from tfn_jobs.initial_weights import read_initial_weights
from tfn_jobs.member_data import MemberData, read_member_data
from tfn_jobs.pipeline_data import check_data, data_location
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.pipeline_stages import MemberStage, PipelineStages, pipeline_stages, salvages
from tfn_jobs.prepare import PrepareJob, prepare
from tfn_jobs.proposal_tables import FUSED, proposals_of, ranked_for
from tfn_jobs.propose import ProposeJob, propose
from tfn_jobs.refiner_member import RefinerData
from tfn_jobs.report import ReportJob, write_report
from tfn_jobs.synthesize import synthesize
from tfn_jobs.train_members import MemberTask, train_members
from tfn_platform.cluster import connection
from tfn_platform.parquet import read_table
from tfn_platform.stages import PlannedStage, Stage, plan, remember, run_stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import PROPOSALS
from tfn_platform.training import EpochReport


@dataclass(frozen=True)
class Pipeline:
    """A checked spec, the storage root that it works in, and its stages."""

    spec: PipelineSpec
    store: Store
    stages: PipelineStages
    location: DataLocation | None
    """Where the videos lie; None for a data set that is still to be rendered."""

    @classmethod
    def open(cls, spec: PipelineSpec, store: Store) -> "Pipeline":
        """Lay out the stages; look at the data set first if there is one to look at.

        Raises:
            DataError: the annotation cannot be read, or does not hold what the spec needs.
        """
        location = data_location(spec, store, None)
        if location is not None:
            check_data(spec, location)
        return cls(spec, store, pipeline_stages(spec, location), location)

    def survey(self) -> list[PlannedStage]:
        """What is made, what would run, and why; looks at nothing but the stages' folders."""
        return plan(self.stages.until(self.spec.until), self.store, pipeline=self.spec.name)

    def plan(self) -> list[PlannedStage]:
        """The same, after a check of the checkpoint if it is yet to be used.

        Raises:
            DataError: the checkpoint is not of the spec's architecture, or has just changed.
        """
        planned = self.survey()
        to_run = {entry.stage.name for entry in planned if not entry.is_done}
        if self.spec.backbone.checkpoint is not None and self.stages.finetune.name in to_run:
            read_initial_weights(self.spec.backbone, content_hash=self.stages.checkpoint_hash)
        return planned


def run_pipeline(
    pipeline: Pipeline, *, address: str | None, on_epoch: Callable[[str, EpochReport], None]
) -> None:
    """Run every stage that is not made yet.

    Args:
        pipeline: what to run.
        address: of a running Ray cluster; None starts Ray here.
        on_epoch: told of each epoch of each training.
    """
    planned = pipeline.plan()
    remember([entry.stage for entry in planned], pipeline.store, pipeline=pipeline.spec.name)
    if all(entry.is_done for entry in planned):
        say(f"nothing to run: all {len(planned)} stages are made")
        return
    say_plan(planned)
    with connection(address):
        _Run(pipeline, on_epoch, {entry.stage.name for entry in planned}).all()


def say_plan(planned: list[PlannedStage]) -> None:
    """One line a stage: made, or to be made and why."""
    width = max(len(entry.stage.name) for entry in planned)
    for entry in planned:
        mark = "[green]made[/green]" if entry.is_done else "[yellow]run [/yellow]"
        reason = "" if entry.is_done else f"  {entry.reason}"
        say(f"{mark}  {entry.stage.name:<{width}}  {entry.stage.key}{reason}")


@dataclass
class _Run:
    """One execution. Each method is one step; what a step needs is read when it runs."""

    pipeline: Pipeline
    on_epoch: Callable[[str, EpochReport], None]
    wanted: set[str]

    def all(self) -> None:
        """The pipeline, from the videos to the report."""
        spec, stages = self.pipeline.spec, self.pipeline.stages
        if isinstance(spec.dataset, SyntheticDataSpec) and stages.synthesize is not None:
            dataset = spec.dataset
            self.make(stages.synthesize, lambda folder: synthesize(dataset, folder))
        self.make(stages.prepare, self.prepare)
        self.make(stages.finetune, self.finetune)
        self.make(stages.extract, self.extract)
        self.train("members", (*stages.classifiers, *stages.bmns))
        self.make(stages.propose, self.propose)
        self.train("refiners", stages.refiners)
        self.make(stages.fuse, self.fuse)
        self.make(stages.evaluate, self.evaluate)
        self.make(stages.report, self.report)

    def make(self, stage: Stage, make: Callable[[StageFolder], Mapping[str, Any]]) -> None:
        """Run one stage unless it is made or comes after the last step wanted."""
        if stage.name in self.wanted:
            run_stage(stage, self.pipeline.store, make)

    def folder(self, stage: Stage) -> StageFolder:
        """A stage's folder in this storage root."""
        return stage.folder(self.pipeline.store)

    def folders(
        self, members: tuple[MemberStage, ...], *, baseline: bool
    ) -> dict[str, StageFolder]:
        """The folders of the trained members, or of the baselines."""
        return {m.spec.name: self.folder(m.stage) for m in members if m.is_baseline == baseline}

    @cached_property
    def data(self) -> MemberData:
        """Features and annotations of all usable videos."""
        spec, stages = self.pipeline.spec, self.pipeline.stages
        return read_member_data(
            self.folder(stages.prepare),
            self.folder(stages.extract),
            training_subset=spec.training_subset,
            evaluation_subset=spec.evaluation.subset,
            seed=spec.seed,
        )

    @cached_property
    def location(self) -> DataLocation:
        """Where the videos lie, once they are rendered if they are to be."""
        synthesized = self.pipeline.stages.synthesize
        found = self.pipeline.location
        found = found or data_location(self.pipeline.spec, self.pipeline.store, synthesized)
        assert found is not None
        return found

    def prepare(self, folder: StageFolder) -> Mapping[str, Any]:
        """Videos and annotations -> VIDEOS, ANNOTATIONS, QUARANTINE."""
        spec, stages = self.pipeline.spec, self.pipeline.stages
        job = PrepareJob(
            self.location,
            stages.prepare,
            folder,
            subsets=(spec.training_subset, spec.evaluation.subset),
            stall_seconds=spec.extraction.stall_seconds,
            max_attempts=spec.extraction.max_attempts,
            salvage=salvages(spec),
        )
        return prepare(job)

    def finetune(self, folder: StageFolder) -> Mapping[str, Any]:
        """Annotated segments -> the backbone's weights."""
        stages = self.pipeline.stages
        job = FinetuneJob(
            self.pipeline.spec,
            self.folder(stages.prepare),
            folder,
            stages.checkpoint_hash,
        )
        return finetune(job, on_epoch=lambda report: self.on_epoch(stages.finetune.name, report))

    def extract(self, folder: StageFolder) -> Mapping[str, Any]:
        """Videos -> FEATURES."""
        stages = self.pipeline.stages
        prepared, backbone = self.folder(stages.prepare), self.folder(stages.finetune)
        share = self.location.max_quarantined_share
        return extract(
            ExtractJob(self.pipeline.spec, stages.extract, prepared, backbone, folder, share)
        )

    def train(self, name: str, members: tuple[MemberStage, ...]) -> None:
        """FEATURES (and proposals, for refiners) -> one trained member a stage."""
        tasks = [MemberTask(m.spec, m.stage) for m in members if m.stage.name in self.wanted]
        if all(self.folder(task.stage).is_done for task in tasks):
            return
        train_members(
            tasks,
            self.refiner_data() if name == "refiners" else self.data,
            name=name,
            store=self.pipeline.store,
            resources=self.pipeline.spec.resources,
            on_epoch=self.on_epoch,
        )

    def refiner_data(self) -> RefinerData:
        """Features, annotations and the fused proposals of all videos."""
        table, _ = read_table(self.folder(self.pipeline.stages.propose), PROPOSALS)
        return RefinerData(self.data, proposals_of(table, ranked_for(FUSED, "detection")))

    def propose(self, folder: StageFolder) -> Mapping[str, Any]:
        """Boundary maps of all BMNs -> PROPOSALS."""
        stages = self.pipeline.stages
        job = ProposeJob(
            fusion=self.pipeline.spec.fusion,
            stage=stages.propose,
            folder=folder,
            data=self.data,
            members=self.folders(stages.bmns, baseline=False),
            baselines=self.folders(stages.bmns, baseline=True),
        )
        return propose(job)

    def fuse(self, folder: StageFolder) -> Mapping[str, Any]:
        """Class scores and refined proposals -> DETECTIONS."""
        stages = self.pipeline.stages
        job = FuseJob(
            fusion=self.pipeline.spec.fusion,
            stage=stages.fuse,
            folder=folder,
            data=self.data,
            classifiers=self.folders(stages.classifiers, baseline=False),
            proposed=self.folder(stages.propose),
            refiners=self.folders(stages.refiners, baseline=False),
        )
        return fuse(job)

    def evaluate(self, folder: StageFolder) -> Mapping[str, Any]:
        """Everything predicted -> its figures."""
        stages = self.pipeline.stages
        job = EvaluateJob(
            fusion=self.pipeline.spec.fusion,
            folder=folder,
            data=self.data,
            prepared=self.folder(stages.prepare),
            classifiers=self.folders(stages.classifiers, baseline=False),
            bmns=self.folders(stages.bmns, baseline=False),
            refiners=self.folders(stages.refiners, baseline=False),
            untrained_classifiers=self.folders(stages.classifiers, baseline=True),
            untrained_bmns=self.folders(stages.bmns, baseline=True),
            proposed=self.folder(stages.propose),
            fused=self.folder(stages.fuse),
        )
        return evaluate(job)

    def report(self, folder: StageFolder) -> Mapping[str, Any]:
        """Figures -> one HTML page."""
        stages = self.pipeline.stages
        return write_report(
            ReportJob(
                spec=self.pipeline.spec,
                stage=stages.report,
                prepared=self.folder(stages.prepare),
                fused=self.folder(stages.fuse),
                evaluated=self.folder(stages.evaluate),
                folder=folder,
            )
        )


def read_evaluation(pipeline: Pipeline) -> Evaluation:
    """The figures of a finished pipeline."""
    folder = pipeline.stages.evaluate.folder(pipeline.store)
    return Evaluation.model_validate(pipeline.store.read_json(folder.metrics))
