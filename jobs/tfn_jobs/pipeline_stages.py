"""The stages of a pipeline and what each depends on: the graph that `plan` and `run` share."""

from dataclasses import dataclass
from typing import Any

from tfn_jobs.data_location import DataLocation, file_hash
from tfn_jobs.data_specs import SyntheticDataSpec, VideosDataSpec
from tfn_jobs.member_specs import UNTRAINED, MemberSpec
from tfn_jobs.pipeline_spec import STEPS, PipelineSpec, Step
from tfn_platform.stages import Stage

PREPARE_VERSION = 2

UNSEEN_IN_FEATURES = ("stall_seconds", "max_attempts", "patience_seconds", "journal_seconds")


@dataclass(frozen=True)
class MemberStage:
    """A member, its stage, and whether it is part of the ensemble or only a baseline."""

    spec: MemberSpec
    stage: Stage

    @property
    def is_baseline(self) -> bool:
        """Whether it is left as initialised, for comparison."""
        return self.spec.name == UNTRAINED


@dataclass(frozen=True)
class PipelineStages:
    """All stages, in the order in which they run."""

    synthesize: Stage | None
    prepare: Stage
    finetune: Stage
    extract: Stage
    classifiers: tuple[MemberStage, ...]
    bmns: tuple[MemberStage, ...]
    propose: Stage
    refiners: tuple[MemberStage, ...]
    fuse: Stage
    evaluate: Stage
    report: Stage

    @property
    def members(self) -> tuple[MemberStage, ...]:
        """The members that are trained, and the baselines."""
        return (*self.classifiers, *self.bmns, *self.refiners)

    def until(self, last: Step) -> list[Stage]:
        """The stages up to and with a step, in order."""
        steps: dict[Step, list[Stage]] = {
            "prepare": [*([self.synthesize] if self.synthesize else []), self.prepare],
            "finetune": [self.finetune],
            "extract": [self.extract],
            "members": [member.stage for member in (*self.classifiers, *self.bmns)],
            "propose": [self.propose],
            "refiners": [member.stage for member in self.refiners],
            "fuse": [self.fuse],
            "evaluate": [self.evaluate],
            "report": [self.report],
        }
        chosen = STEPS[: STEPS.index(last) + 1]
        return [stage for step in chosen for stage in steps[step]]

    @property
    def checkpoint_hash(self) -> str | None:
        """Hash of the backbone's checkpoint as the keys hold it; None where there is none."""
        found: str | None = self.finetune.settings["checkpoint"]
        return found

    @property
    def key(self) -> str:
        """Names everything that the pipeline makes."""
        return self.report.key


def pipeline_stages(spec: PipelineSpec, location: DataLocation | None) -> PipelineStages:
    """Lay out the stages of a spec.

    Args:
        spec: the pipeline.
        location: where the data set lies; None for one that is rendered, whose stage says it all.
    """
    synthesize = None
    if isinstance(spec.dataset, SyntheticDataSpec):
        synthesize = Stage("synthesize", _settings(spec.dataset))
    prepare = _prepare(spec, location, synthesize)
    backbone = _settings(spec.backbone, without=("batch_clips", "num_threads"))
    if spec.backbone.checkpoint is not None:
        backbone["checkpoint"] = file_hash(spec.backbone.checkpoint)
    seed = {"seed": spec.seed}
    finetune = Stage("finetune", {**backbone, **seed})
    if spec.backbone.finetune is not None:
        cut = _settings(spec.clips, without=("stride_seconds", "crop"))
        finetune = Stage("finetune", {**backbone, **seed, "clips": cut}, (prepare,))
    extraction = {
        "batch_clips": spec.backbone.batch_clips,
        "num_threads": spec.backbone.num_threads,
        **_settings(spec.extraction, without=UNSEEN_IN_FEATURES),
    }
    extract = Stage("extract", {"clips": _settings(spec.clips), **extraction}, (prepare, finetune))
    baseline = spec.evaluation.untrained_baseline
    classifiers = _members("classifier", spec.classifiers, seed, (extract,), baseline)
    bmns = _members("bmn", spec.bmns, seed, (extract,), baseline)
    fusion = {**_settings(spec.fusion), **seed}
    propose = Stage("propose", fusion, _trained(bmns))
    refiners = _members("refiner", spec.refiners, seed, (extract, propose), False)
    fuse = Stage("fuse", fusion, (*_trained(classifiers), propose, *_trained(refiners)))
    measured = tuple(member.stage for member in (*classifiers, *bmns, *refiners))
    evaluate = Stage("evaluate", {}, (*measured, propose, fuse))
    report = Stage(
        "report", {"name": spec.name, "timelines": spec.evaluation.timelines}, (evaluate,)
    )
    return PipelineStages(
        synthesize,
        prepare,
        finetune,
        extract,
        classifiers,
        bmns,
        propose,
        refiners,
        fuse,
        evaluate,
        report,
    )


def salvages(spec: PipelineSpec) -> bool:
    """Whether videos pass whose damage extraction can work around: training cannot."""
    return spec.extraction.damage == "salvage" and spec.backbone.finetune is None


def _prepare(spec: PipelineSpec, location: DataLocation | None, synthesize: Stage | None) -> Stage:
    """What it makes depends on everything in the data set but how much of it may be unusable."""
    settings: dict[str, Any] = {}
    if not isinstance(spec.dataset, VideosDataSpec):
        subsets = {"training_subset": spec.training_subset, "subset": spec.evaluation.subset}
        settings |= subsets
    if salvages(spec):
        settings["salvage"] = True
    if synthesize is not None:
        return Stage("prepare", settings, (synthesize,), version=PREPARE_VERSION)
    assert location is not None
    data = _settings(spec.dataset, without=("max_quarantined_share",))
    if len(data["videos"]) > 1:
        # The content knows every name, and a list may be long.
        del data["videos"]
    settings |= {**data, "content": location.fingerprint()}
    return Stage("prepare", settings, version=PREPARE_VERSION)


def _settings(spec: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    settings: dict[str, Any] = spec.model_dump(mode="json", exclude=set(without))
    return settings


def _members(
    family: str,
    specs: list[Any],
    seed: dict[str, int],
    inputs: tuple[Stage, ...],
    baseline: bool,
) -> tuple[MemberStage, ...]:
    if baseline and specs:
        untrained = specs[0].training.model_copy(update={"num_epochs": 0})
        specs = [*specs, specs[0].model_copy(update={"name": UNTRAINED, "training": untrained})]
    return tuple(
        # The name of a member tells folders apart, and seeds it: equal settings under two names
        # are two members.
        MemberStage(spec, Stage(f"{family}/{spec.name}", {**_settings(spec), **seed}, inputs))
        for spec in specs
    )


def _trained(members: tuple[MemberStage, ...]) -> tuple[Stage, ...]:
    return tuple(member.stage for member in members if not member.is_baseline)
