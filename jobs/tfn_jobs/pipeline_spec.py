"""The pipeline spec: from the videos to the report in one YAML, checked before anything runs."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from tfn_jobs.backbones import ARCHITECTURES
from tfn_jobs.data_specs import DataSpec, annotation_problems
from tfn_jobs.extraction_spec import ExtractionSpec
from tfn_jobs.member_specs import BmnSpec, ClassifierSpec, MemberName, RefinerSpec
from tfn_jobs.resources_spec import ResourcesSpec
from tfn_jobs.spec_consistency import pipeline_problems
from tfn_jobs.spec_fields import (
    DEFAULT_ARCHITECTURE,
    DEFAULT_CROP,
    DEFAULT_CROPPED_FROM,
    DEFAULT_FOLDS,
    DEFAULT_FRAMES,
    DEFAULT_SHORT_SIDE,
    ChannelNumbers,
    ExactNumber,
    ExistingUri,
    one_of,
)
from tfn_models.backbones.crops import RandomCropConfig
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.spec import Spec
from tfn_platform.training import TrainingSettings


class ClipsSpec(Spec):
    """The sampling grid on which videos are cut into clips."""

    frame_rate: ExactNumber = "15"
    """Frames a second of the grid."""
    stride_seconds: ExactNumber = "1/2"
    """Seconds from the centre of a clip to the next."""
    frames_per_clip: int = Field(DEFAULT_FRAMES, ge=2)
    """Frames a clip."""
    short_side: int = Field(DEFAULT_SHORT_SIDE, ge=16)
    """Pixels of the shorter side after resizing."""
    crop: Literal["none", "center"] = "none"
    """Whether extraction looks at the whole frame or at its central square."""

    def grid(self) -> SamplingGrid:
        """The same as numbers."""
        return SamplingGrid(
            Fraction(self.frame_rate),
            Fraction(self.stride_seconds),
            frames_per_clip=self.frames_per_clip,
            short_side=self.short_side,
        )


class RandomCropSpec(Spec):
    """Random scale and crop of each training clip (SlowFast's recipe; its numbers by default)."""

    short_side_low: int = Field(DEFAULT_CROPPED_FROM, ge=1)
    """Shortest length that a clip's shorter side is resized to, pixels; at most that of `clips`,
    else training would see nothing but enlarged frames, which extraction never does."""
    short_side_high: int = Field(320, ge=1)
    """Longest such length, pixels."""
    size: int = Field(DEFAULT_CROP, ge=16)
    """Side of the square that is cut out anywhere, pixels."""

    @model_validator(mode="after")
    def _fits_in(self) -> Self:
        RandomCropConfig(**self.model_dump())
        return self


class FinetuneSpec(Spec):
    """Fine-tuning of the backbone on clips inside annotated segments (paper, section 1.1)."""

    clips_per_segment: int = Field(1, ge=1)
    """Clips drawn from each training segment and epoch; they share one decoding."""
    validation_clips_per_segment: int = Field(1, ge=1)
    """Clips of each validation segment, evenly spread, on which the best epoch is chosen."""
    nuclear_norm_weight: float = Field(0.0, ge=0)
    """Weight of the Batch Nuclear-norm term."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Probability spread over the other classes."""
    max_shift_pixels: int = Field(0, ge=0)
    """Largest random shift of a clip."""
    contrast: float = Field(0.0, ge=0, lt=1)
    """Contrast is multiplied by 1 ± this, at random."""
    brightness: float = Field(0.0, ge=0, lt=1)
    """Brightness is moved by ± this, at random."""
    invert_probability: float = Field(0.0, ge=0, le=1)
    """Probability that light and dark are exchanged."""
    flip_probability: float = Field(0.0, ge=0, le=1)
    """Probability of a left-right flip; only where no class depends on the direction."""
    random_crop: RandomCropSpec | None = None
    """Random scale and crop of the central square that training clips are cut to anyway, from
    frames of `clips.short_side`; `{}` has SlowFast's numbers, without its flip (`flip_probability:
    0.5`), null is none. Validation sees the whole central square, extraction what `clips.crop`
    says."""
    num_workers: int = Field(1, ge=1)
    """Data-parallel training processes; the batch size is a process's."""
    decode_threads: int = Field(2, ge=0)
    """Threads of each worker that decode ahead of the training; 0 decodes in between."""
    training: TrainingSettings = TrainingSettings(learning_rate=1e-3, batch_size=32)
    """How it is trained."""


class BackboneSpec(Spec):
    """The network that turns a clip into a feature."""

    architecture: Annotated[str, one_of(sorted(ARCHITECTURES), "backbone")] = DEFAULT_ARCHITECTURE
    """Which network. Published weights were trained on clips of 32 frames at 15 a second and 224
    pixels of a short side of 256 (SlowFast, those called 16x8 of 64 frames; I3D-R50, which uses
    every fourth; mvit, which uses every other; swin3d), or else of 64 frames at 25 (I3D Inception),
    128 at 15 (s3d), 16 at 15 and 112 pixels of 128 (r3d, mc3, r2plus1d); others are accepted."""
    checkpoint: ExistingUri | None = None
    """File of the weights to start from, of this program, pytorchvideo, PySlowFast, caffe2,
    mmaction2, piergiaj (I3D) or torchvision; None starts at random."""
    finetune: FinetuneSpec | None = FinetuneSpec()
    """How it is fine-tuned; null uses the checkpoint as it is."""
    mean: ChannelNumbers | None = None
    """Subtracted from frames in 0..1: one number, or one each for red, green and blue; by default
    what the architecture's published weights were trained with."""
    std: ChannelNumbers | None = None
    """What frames are then divided by, above 0; likewise."""
    batch_clips: int = Field(16, ge=1)
    """Clips in one forward pass of the extraction."""
    num_threads: int = Field(1, ge=1)
    """CPU threads of each extracting actor."""

    @field_validator("std")
    @classmethod
    def _divides(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std is not None and min(std) <= 0:
            raise ValueError(f"must be above 0, got {min(std):g}")
        return std

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.checkpoint is None and self.finetune is None:
            raise ValueError("needs a checkpoint, or a finetune section to make one")
        return self


class FusionSpec(Spec):
    """How the members are joined (paper, sections 2.1 to 2.3)."""

    num_folds: int = Field(DEFAULT_FOLDS, ge=2)
    """Folds of the validation videos: weights for a fold are fitted on the others."""
    num_bins: int = Field(200, ge=2, le=1024)
    """Grid that all boundary maps are resized to."""
    candidates: Literal["peaks", "all"] = "peaks"
    """Bins that may bound a proposal: peaks and high ones, or all (for videos of few bins)."""
    max_fitting_videos: int = Field(500, ge=1)
    """Held-out videos that the maps' weights are fitted on; chosen at random from more."""
    class_weights: Literal["simplex", "free"] = "simplex"
    """Weights of the classifiers' logits: positive with sum 1, or of any sign and size (as in the
    paper), which also changes how sure the classes are."""
    map_weights: Literal["simplex", "free"] = "simplex"
    """Weights of the boundary maps, likewise; sums by free ones are cut off at 0 and 1."""
    refiner_weights: Literal["simplex", "free"] = "simplex"
    """Weights of the refined proposals: with sum 1 in any case, free ones may be negative."""
    proposals_per_video: int = Field(100, ge=1)
    """Proposals kept after soft-NMS."""
    top_classes: int = Field(3, ge=1)
    """Classes a video that proposals are combined with."""
    detections_per_video: int = Field(200, ge=1)
    """Detections kept."""


class EvaluationSpec(Spec):
    """What is measured."""

    subset: str = "validation"
    """The annotated subset that is predicted and scored."""
    untrained_baseline: bool = True
    """Also score the first member of each family as initialised."""
    timelines: int = Field(6, ge=0)
    """Videos drawn in the report."""


class TrackingSpec(Spec):
    """Where MLflow keeps the runs."""

    uri: str | None = None
    """Tracking server or database; by default SQLite in the storage root."""
    experiment: str | None = None
    """Experiment; by default the pipeline's name."""


Step = Literal[
    "prepare", "finetune", "extract", "members", "propose", "refiners", "fuse", "evaluate", "report"
]
STEPS: tuple[Step, ...] = get_args(Step)


class PipelineSpec(Spec):
    """A whole pipeline, or with `until` the first steps of one."""

    name: MemberName
    """Name of the pipeline."""
    seed: int = Field(0, ge=0)
    """Decides everything random in training."""
    dataset: DataSpec
    """Videos, and their annotations if there are any."""
    training_subset: str = "training"
    """The annotated subset that is trained on."""
    clips: ClipsSpec = ClipsSpec()
    """Sampling grid."""
    backbone: BackboneSpec = BackboneSpec()
    """Feature extractor."""
    extraction: ExtractionSpec = ExtractionSpec()
    """How its features are made and stored."""
    until: Step = "report"
    """The last step to run; a spec that ends before `members` need not name any."""
    classifiers: list[ClassifierSpec] = []
    """Video classifiers."""
    bmns: list[BmnSpec] = []
    """Proposal networks."""
    refiners: list[RefinerSpec] = []
    """Refine Networks."""
    fusion: FusionSpec = FusionSpec()
    """Ensemble weights."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """Measurement."""
    resources: ResourcesSpec = ResourcesSpec()
    """CPUs and GPUs."""
    tracking: TrackingSpec = TrackingSpec()
    """MLflow."""

    @classmethod
    def problems_across(cls, data: Mapping[str, Any]) -> list[str]:
        """Names that are taken, subsets and folds that do not fit, members that are missing."""
        needs_members = _needs_members(data.get("until", "report"))
        return [
            *pipeline_problems(data, needs_members=needs_members),
            *annotation_problems(data, needs_members=needs_members),
        ]


def _needs_members(until: Any) -> bool:
    return until in STEPS and STEPS.index(until) >= STEPS.index("members")
