"""The import spec: which features others published, and how they say that they made them."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field

from tfn_jobs.spec_fields import ExactNumber, ExistingUri, one_of
from tfn_platform.datasets import DATASETS
from tfn_platform.foreign_features import FORMATS
from tfn_platform.foreign_features.durations import TABLE_FORMAT
from tfn_platform.foreign_features.lengths import StrideRule
from tfn_platform.foreign_features.matrix import MatrixLayout
from tfn_platform.foreign_features.source import VIDEO_ID
from tfn_platform.spec import Spec
from tfn_platform.tables import FeatureContract


class ImportSpec(Spec):
    """Features of another program: where they lie, and how they were made."""

    source: ExistingUri
    """Folder (path or URI) of the files, searched with all below it, or a single file."""
    format: Annotated[str, one_of(sorted(FORMATS), "feature format")]
    """Kind of the files: csv, h5, npy, npz, pkl or pt."""
    files: str | None = None
    """Which files, as in ``**/v_{video_id}.npy``; null is all with an ending of the format."""
    keys: tuple[str, ...] = ()
    """Names of a video's arrays in its file, joined along the channels in this order (TCANet:
    ``[slow_feature, fast_feature]``); none where there is but one. With ``{video_id}`` in them a
    file holds many videos, as in ``["{video_id}/rgb"]``."""
    axes: Literal["TC", "CT"] = "TC"
    """Axes of an array: clips × channels, or channels × clips; others of size 1 are dropped."""

    durations: ExistingUri | None
    """What the lengths are checked against: a table (.csv, .parquet or a folder of the latter such
    as a VIDEOS table) with columns video_id and duration_seconds, or an annotation. null checks
    nothing, and must be written."""
    durations_format: Annotated[
        str, one_of(sorted([*DATASETS, TABLE_FORMAT]), "annotation format")
    ] = TABLE_FORMAT
    """``table``, or the layout of the annotation."""
    subsets: tuple[str, ...] = ()
    """Only videos of these subsets of `durations`; none is all."""

    backbone: str = Field(min_length=1)
    """Name of the network that made the features."""
    weights: str = "unknown"
    """Which weights it had, in words; tables that are used together must say the same."""
    feature_dim: int = Field(ge=1)
    """Values a clip, of all `keys` together."""
    frame_rate: ExactNumber
    """Frames a second that the videos were read at."""
    stride_seconds: ExactNumber
    """Seconds from a clip to the next; every 8 frames at 15 a second are 8/15."""
    frames_per_clip: int = Field(ge=1)
    """Frames a clip."""
    alignment: Literal["center", "start"]
    """Whether clip k is centred on (k + ½) strides, or begins at k strides."""
    short_side: int | None = Field(None, ge=1)
    """Pixels of the short side; null: unknown."""
    normalization: str | None = None
    """How frames were cut and normalised; null: unknown."""
    decoder: str | None = None
    """What decoded the videos; null: unknown."""
    value_type: Literal["float32", "float16"] = "float32"
    """Type that the values are stored in."""

    tolerance_seconds: float = Field(2.0, ge=0)
    """A video's features may be this much longer or shorter than its duration."""
    tolerance_share: float = Field(0.02, ge=0, lt=1)
    """The same as a share of the duration; the larger of the two counts."""
    extra_videos: Literal["refuse", "leave_out"] = "refuse"
    """What to do with features of videos that `durations` does not name."""
    leave_out: tuple[str, ...] = ()
    """Videos that are passed over."""
    max_refused_share: float = Field(0.0, ge=0, lt=1)
    """Share of the videos that may be missing or of a wrong length: they go to QUARANTINE, and the
    import fails above it. Damaged features fail in any case."""

    @classmethod
    def problems_across(cls, data: Mapping[str, Any]) -> list[str]:
        """Fields that contradict one another."""
        problems = []
        keys = data.get("keys") or ()
        are_texts = all(isinstance(key, str) for key in keys)
        has_many = [VIDEO_ID in key for key in keys] if are_texts else []
        if any(has_many) and not all(has_many):
            problems.append(f"keys: all of them must hold {VIDEO_ID}, or none")
        files = data.get("files")
        if isinstance(files, str) and files.count(VIDEO_ID) != int(not any(has_many)):
            expected = "not hold" if any(has_many) else "hold once"
            problems.append(f"files: must {expected} {VIDEO_ID}, got {files!r}")
        if data.get("durations") is None and data.get("subsets"):
            problems.append("subsets: are those of `durations`, which is null")
        return problems

    @property
    def layout(self) -> MatrixLayout:
        """How arrays are to be read."""
        return MatrixLayout(self.axes, self.feature_dim, self.value_type)

    @property
    def rule(self) -> StrideRule:
        """What the lengths are checked by."""
        return StrideRule(
            Fraction(self.stride_seconds),
            self.frames_per_clip / Fraction(self.frame_rate),
            tolerance_seconds=self.tolerance_seconds,
            tolerance_share=self.tolerance_share,
        )

    @property
    def contract(self) -> FeatureContract:
        """What the table says about itself."""
        return FeatureContract(
            backbone=self.backbone,
            weights_hash=self.weights,
            feature_dim=self.feature_dim,
            frames_per_clip=self.frames_per_clip,
            frame_rate=self.frame_rate,
            stride_seconds=self.stride_seconds,
            alignment=self.alignment,
            short_side=self.short_side,
            normalization=self.normalization,
            decoder=self.decoder,
            value_type=self.value_type,
        )
