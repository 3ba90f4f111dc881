"""The data sets that a pipeline spec may name: rendered here, annotated, or just videos."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from tfn_jobs.spec_fields import DEFAULT_VALIDATION_VIDEOS, RUNS_ELSEWHERE, ExistingUri, one_of
from tfn_platform.datasets import DATASETS
from tfn_platform.datasets.synthetic import SyntheticConfig
from tfn_platform.spec import Spec

DEFAULT_DURATION_TOLERANCE = 0.1


def _each_source(value: Any) -> Any:
    """One place may be written without the dash of a list."""
    return (value,) if isinstance(value, str) else value


def _found(sources: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """Local places become absolute, so that workers find them too; a single one must be there."""
    runs_elsewhere = info.context is not None and info.context.get(RUNS_ELSEWHERE)
    placed = []
    for source in sources:
        if not source:
            raise ValueError("must name a folder, a glob, a file or a manifest, got ''")
        if runs_elsewhere and "://" not in source and not source.startswith("/"):
            raise ValueError(
                f"must be absolute, or a URI, for a cluster to find it, got {source!r}"
            )
        is_local = "://" not in source
        placed.append(os.path.abspath(os.path.expanduser(source)) if is_local else source)
    # In a list, a file that is missing costs one video; a single name that is wrong, everything.
    only = placed[0]
    if len(placed) == 1 and "://" not in only and not runs_elsewhere and not _is_there(only):
        raise ValueError(f"there is no file or folder {sources[0]!r} (looked for {only!r})")
    return tuple(placed)


def _is_there(path: str) -> bool:
    return any(character in path for character in "*?[") or os.path.lexists(path)


VideoSources = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(_each_source), AfterValidator(_found)
]


class SyntheticDataSpec(Spec):
    """A data set rendered on the spot: six motions that no single frame tells apart."""

    format: Literal["synthetic"]
    """Which kind of data set this is."""
    num_training: int = Field(360, ge=1)
    """Training videos, damaged ones included."""
    num_validation: int = Field(DEFAULT_VALIDATION_VIDEOS, ge=1)
    """Validation videos, damaged ones included."""
    min_duration_seconds: float = Field(10.0, ge=2)
    """Length of the shortest video."""
    max_duration_seconds: float = Field(16.0, ge=2)
    """Length of the longest video."""
    min_segment_seconds: float = Field(1.2, ge=0.5)
    """Length of the shortest action."""
    max_segment_seconds: float = Field(8.0, ge=0.5)
    """Length of the longest action."""
    damaged_share: float = Field(0.0, ge=0, le=0.5)
    """Share of files that are spoilt, of all kinds in turn."""
    seed: int = Field(0, ge=0)
    """Fixes every byte of the data set."""

    @model_validator(mode="after")
    def _can_be_rendered(self) -> Self:
        SyntheticConfig(**self.model_dump(exclude={"format"}))
        return self


class VideosDataSpec(Spec):
    """Videos without any annotation: enough for features, and for nothing that learns."""

    format: Literal["videos"]
    """Which kind of data set this is."""
    videos: VideoSources
    """Where they lie, each a path or a URI: a folder (with all below it), a glob such as
    `/data/**/*.mp4`, a manifest (.csv or .parquet with a column `uri` or `path`, and if wanted
    `video_id`, `subset`, `duration_seconds`), a video file, or a list of such. Without a manifest a
    video's id is its path below the folder, or below the glob's part without wildcards, less the
    ending; in a list of files, the file's stem."""
    max_quarantined_share: float = Field(0.1, ge=0, le=1)
    """The job fails when more of the videos than this cannot be used."""
    duration_tolerance: float | None = Field(DEFAULT_DURATION_TOLERANCE, ge=0)
    """Share of the manifest's duration that a file's may differ by, at least 2 seconds; null does
    not compare."""


class AnnotatedDataSpec(Spec):
    """Videos, and an annotation file."""

    format: Annotated[
        str, one_of(sorted(DATASETS), "annotation format", elsewhere=("synthetic", "videos"))
    ]
    """Layout of the annotation."""
    annotations: ExistingUri
    """The annotation file: a path or a URI."""
    videos: VideoSources
    """Where the video files lie, as in a data set of format `videos`; mostly a folder. A file's id,
    or its stem, is video_id, or ``v_`` and that."""
    max_quarantined_share: float = Field(0.1, ge=0, le=1)
    """The job fails when more of the annotated videos than this cannot be used."""
    duration_tolerance: float | None = Field(DEFAULT_DURATION_TOLERANCE, ge=0)
    """Share of the annotated duration that a file's may differ by, at least 2 seconds; null does
    not compare."""


DataSpec = SyntheticDataSpec | VideosDataSpec | AnnotatedDataSpec


def annotation_problems(data: Mapping[str, Any], *, needs_members: bool) -> list[str]:
    """What a pipeline spec asks for that videos without an annotation cannot give.

    Takes the spec as written or as read; a wrong field is passed over here.
    """
    dataset = data.get("dataset")
    if not isinstance(dataset, Mapping) or dataset.get("format") != "videos":
        return []
    problems = []
    until = data.get("until", "report")
    if needs_members:
        problems.append(
            f"until: must be `extract` or an earlier step where dataset.format is `videos`, got "
            f"{until!r}: what comes after learns from an annotation"
        )
    backbone = data.get("backbone", {})
    finetune = backbone.get("finetune", {}) if isinstance(backbone, Mapping) else None
    if until != "prepare" and finetune is not None:
        problems.append(
            "backbone.finetune: must be null where dataset.format is `videos`: fine-tuning needs "
            "an annotation; name a `checkpoint` and write `finetune: null`"
        )
    return problems
