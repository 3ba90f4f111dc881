"""The tables that flow between jobs: their columns, and the contract in the metadata of each."""

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfn_platform.errors import TableError
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.spec import Spec

__all__ = [
    "ANNOTATIONS",
    "BOUNDARY_MAPS",
    "CLASS_SCORES",
    "DAMAGED",
    "DETECTIONS",
    "FEATURES",
    "PROPOSALS",
    "QUARANTINE",
    "VIDEOS",
    "Contract",
    "FeatureContract",
    "QuarantineReason",
    "Table",
    "check_feature_contract",
]

SCHEMA_VERSION = 2
CONTRACT_KEY = b"tfn.contract"


@dataclass(frozen=True)
class Table:
    """A table's name and columns. A list column of length 0 has a fixed length set by the spec.

    Attributes:
        name: such as ``FEATURES``.
        schema: the columns.
        allows_float16: whether fixed-size lists may hold float16 in place of float32.
    """

    name: str
    schema: pa.Schema
    allows_float16: bool = False

    def sized(self, length: int, *, value_type: pa.DataType | None = None) -> pa.Schema:
        """The schema with its fixed-size list columns set to `length` values (of another type)."""
        return pa.schema(
            [
                pa.field(f.name, pa.list_(value_type or f.type.value_type, length), nullable=False)
                if pa.types.is_fixed_size_list(f.type)
                else f
                for f in self.schema
            ]
        )

    def check(self, actual: pa.Schema, *, source: str) -> None:
        """Refuse a schema that is not this table's, naming the first column that differs."""
        for field in self.schema:
            position = actual.get_field_index(field.name)
            if position < 0:
                raise TableError(
                    f"{source}: not a {self.name} table: no column {field.name!r}; "
                    f"it has {', '.join(actual.names) or 'none'}"
                )
            accepted = self._accepted_types(field.type)
            if not any(_same_type(actual.field(position).type, type_) for type_ in accepted):
                raise TableError(
                    f"{source}: column {field.name!r} of {self.name} must be "
                    f"{' or '.join(map(str, accepted))}, got {actual.field(position).type}"
                )
        extra = [name for name in actual.names if name not in self.schema.names]
        if extra:
            raise TableError(f"{source}: {self.name} has no column {extra[0]!r}")

    def conform(self, rows: pa.Table, *, source: str) -> pa.Table:
        """Check rows and give them this table's order of columns.

        Raises:
            TableError: a column is missing, unknown, of another type, or has nulls.
        """
        self.check(rows.schema, source=source)
        rows = rows.select(self.schema.names)
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            if column.null_count:
                raise TableError(f"{source}: column {name!r} of {self.name} has empty values")
        fields = [rows.schema.field(name).with_nullable(False) for name in rows.schema.names]
        return rows.cast(pa.schema(fields, metadata=rows.schema.metadata))

    def _accepted_types(self, expected: pa.DataType) -> list[pa.DataType]:
        if self.allows_float16 and pa.types.is_fixed_size_list(expected):
            return [expected, pa.list_(pa.float16(), expected.list_size)]
        return [expected]


def _same_type(actual: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(expected):
        return bool(
            pa.types.is_fixed_size_list(actual) and actual.value_type == expected.value_type
        )
    return bool(actual == expected)


def _table(name: str, *, allows_float16: bool = False, **columns: pa.DataType) -> Table:
    schema = pa.schema([pa.field(c, t, nullable=False) for c, t in columns.items()])
    return Table(name, schema, allows_float16)


_SEGMENT = {"start_seconds": pa.float64(), "end_seconds": pa.float64()}

VIDEOS = _table(
    "VIDEOS",
    video_id=pa.string(),
    uri=pa.string(),
    subset=pa.string(),
    duration_seconds=pa.float64(),
    frame_rate=pa.float64(),
    width=pa.int32(),
    height=pa.int32(),
    size_bytes=pa.int64(),
    fingerprint=pa.string(),
)
# The subset stands here too: ground truth must be complete, and VIDEOS leaves out unusable files.
ANNOTATIONS = _table(
    "ANNOTATIONS", video_id=pa.string(), subset=pa.string(), label=pa.string(), **_SEGMENT
)
_FAULT = {
    "video_id": pa.string(),
    "uri": pa.string(),
    "reason": pa.string(),
    "detail": pa.string(),
    "stage": pa.string(),
    "attempts": pa.int32(),
}
QUARANTINE = _table("QUARANTINE", **_FAULT)
# Files that have features in spite of their fault: they were used as far as they go.
DAMAGED = _table("DAMAGED", **_FAULT)
FEATURES = _table(
    "FEATURES",
    allows_float16=True,
    video_id=pa.string(),
    clip_index=pa.int32(),
    center_seconds=pa.float64(),
    feature=pa.list_(pa.float32(), 0),
)
CLASS_SCORES = _table(
    "CLASS_SCORES",
    video_id=pa.string(),
    member=pa.string(),
    logits=pa.list_(pa.float32(), 0),
)
BOUNDARY_MAPS = _table(
    "BOUNDARY_MAPS",
    video_id=pa.string(),
    member=pa.string(),
    num_bins=pa.int32(),
    start=pa.list_(pa.float32()),
    end=pa.list_(pa.float32()),
    classification=pa.list_(pa.float32()),
    regression=pa.list_(pa.float32()),
)
PROPOSALS = _table(
    "PROPOSALS",
    video_id=pa.string(),
    member=pa.string(),
    rank=pa.int32(),
    **_SEGMENT,
    score=pa.float64(),
)
DETECTIONS = _table(
    "DETECTIONS", video_id=pa.string(), label=pa.string(), **_SEGMENT, score=pa.float64()
)


class FeatureContract(Spec):
    """How FEATURES were made: all that a consumer needs to go between clips, seconds and pixels."""

    backbone: str
    """Name of the backbone."""
    weights_hash: str
    """Hash of the backbone's weights file."""
    feature_dim: int
    """Values a clip."""
    frames_per_clip: int
    """Frames a clip."""
    frame_rate: str
    """Frames a second on the sampling grid, as an exact fraction."""
    stride_seconds: str
    """Seconds between the centres of neighbouring clips, as an exact fraction."""
    alignment: Literal["center", "start"]
    """"center": clip k's centre stands at (k + ½)·stride; "start": its first frame at k·stride."""
    short_side: int | None
    """Pixels of the short side; null where that is not known, as of features made elsewhere."""
    normalization: str | None
    """How frames were cut, and normalised (mean and standard deviation in 0..1); null: unknown."""
    decoder: str | None
    """Name and version of the video decoder; null: unknown."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone."""
    value_type: Literal["float32", "float16"] = "float32"
    """Type that the values are stored in."""

    @property
    def clip_seconds(self) -> float:
        """Seconds from the centre of one clip to the next."""
        return float(Fraction(self.stride_seconds))

    def center_seconds(self, num_clips: int) -> NDArray[np.float64]:
        """[T] the instants that a video's first `num_clips` clips stand for, as the grid has them.

        Each is the exact fraction rounded once, as `SamplingGrid.center_seconds` gives it.
        """
        stride = Fraction(self.stride_seconds)
        first = stride / 2
        if self.alignment == "start":
            first = Fraction(self.frames_per_clip - 1, 2) / Fraction(self.frame_rate)
        return np.array([float(stride * clip + first) for clip in range(num_clips)])


@dataclass(frozen=True)
class Contract:
    """Which stage made a table, from which inputs, and (for FEATURES) how."""

    table: str
    stage_key: str
    input_keys: tuple[str, ...]
    features: FeatureContract | None = None

    def to_metadata(self) -> dict[bytes, bytes]:
        """The contract as Parquet key-value metadata."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "table": self.table,
            "stage_key": self.stage_key,
            "input_keys": list(self.input_keys),
            "features": self.features.model_dump() if self.features else None,
        }
        return {CONTRACT_KEY: json.dumps(content, sort_keys=True).encode()}

    @classmethod
    def from_schema(cls, schema: pa.Schema, *, source: str) -> "Contract":
        """Read a contract back; raise TableError if there is none or it is of another version."""
        metadata = schema.metadata or {}
        if CONTRACT_KEY not in metadata:
            raise TableError(f"{source}: carries no contract: it was not written by this program")
        content = json.loads(metadata[CONTRACT_KEY])
        if content["schema_version"] != SCHEMA_VERSION:
            raise TableError(
                f"{source}: schema version {content['schema_version']}, this program reads "
                f"{SCHEMA_VERSION}; make the table again"
            )
        features = content["features"]
        return cls(
            content["table"],
            content["stage_key"],
            tuple(content["input_keys"]),
            FeatureContract.model_validate(features) if features else None,
        )


def check_feature_contract(
    actual: FeatureContract, expected: FeatureContract, *, source: str
) -> None:
    """Refuse features made in another way than expected, naming every field that differs."""
    got, want = actual.model_dump(), expected.model_dump()
    differing = [
        f"{name}: {got[name]!r}, needed {want[name]!r}" for name in want if got[name] != want[name]
    ]
    if differing:
        raise TableError(f"{source}: features of another contract: {'; '.join(differing)}")
