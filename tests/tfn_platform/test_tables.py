"""Table schemas and contracts: what differs is refused and named."""

from fractions import Fraction
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from tfn_platform.errors import TableError
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.tables import (
    ANNOTATIONS,
    CLASS_SCORES,
    DAMAGED,
    FEATURES,
    PROPOSALS,
    QUARANTINE,
    VIDEOS,
    Contract,
    FeatureContract,
    check_feature_contract,
)

CONTRACT = FeatureContract(
    backbone="slowfast_r50",
    weights_hash="abc",
    feature_dim=4,
    frames_per_clip=32,
    frame_rate="15",
    stride_seconds="8/15",
    alignment="center",
    short_side=256,
    normalization="mean 0.45, std 0.225",
    decoder="PyAV 14",
)


def test_the_own_schema_is_accepted_with_any_list_length() -> None:
    VIDEOS.check(VIDEOS.schema, source="x")
    FEATURES.check(FEATURES.sized(7), source="x")
    assert FEATURES.sized(7).field("feature").type == pa.list_(pa.float32(), 7)
    assert FEATURES.sized(7).field("clip_index") == FEATURES.schema.field("clip_index")


def test_features_alone_may_be_of_half_precision() -> None:
    half = FEATURES.sized(7, value_type=pa.float16())
    assert half.field("feature").type == pa.list_(pa.float16(), 7)
    FEATURES.check(half, source="x")
    scores = CLASS_SCORES.sized(7, value_type=pa.float16())
    with pytest.raises(TableError, match="'logits' of CLASS_SCORES must be fixed_size_list<"):
        CLASS_SCORES.check(scores, source="x")


def test_damaged_files_are_told_of_as_quarantined_ones_are() -> None:
    assert DAMAGED.schema == QUARANTINE.schema and DAMAGED.name == "DAMAGED"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            pa.schema([("video_id", pa.string())]),
            "not a FEATURES table: no column 'clip_index'; it has video_id",
        ),
        (pa.schema([]), "no column 'video_id'; it has none"),
        (
            FEATURES.sized(3).set(2, pa.field("center_seconds", pa.float32())),
            "column 'center_seconds' of FEATURES must be double, got float",
        ),
        (
            FEATURES.sized(3).set(3, pa.field("feature", pa.list_(pa.float64(), 3))),
            "column 'feature' of FEATURES must be fixed_size_list<item: float>[0] or "
            "fixed_size_list<item: halffloat>[0], got fixed_size_list<item: double>[3]",
        ),
        (
            FEATURES.sized(3).set(3, pa.field("feature", pa.list_(pa.float32()))),
            "column 'feature' of FEATURES must be",
        ),
        (
            FEATURES.sized(3).append(pa.field("extra", pa.int8())),
            "FEATURES has no column 'extra'",
        ),
    ],
)
def test_another_schema_is_refused_by_name(schema: pa.Schema, message: str) -> None:
    with pytest.raises(TableError) as caught:
        FEATURES.check(schema, source="file.parquet")
    assert str(caught.value).startswith("file.parquet: ")
    assert message in str(caught.value)


def test_conform_orders_the_columns_and_refuses_empty_values() -> None:
    """Parts whose columns stood in another order could not be read together."""
    columns = {
        "end_seconds": [2.0],
        "label": ["x"],
        "start_seconds": [1.0],
        "subset": ["training"],
        "video_id": ["v"],
    }
    rows = ANNOTATIONS.conform(pa.table(columns), source="x")
    assert rows.schema == ANNOTATIONS.schema
    assert rows.to_pylist() == [{name: value[0] for name, value in columns.items()}]
    nulls = pa.table({**columns, "label": pa.array([None], pa.string())})
    with pytest.raises(TableError, match="x: column 'label' of ANNOTATIONS has empty values"):
        ANNOTATIONS.conform(nulls, source="x")


@pytest.mark.parametrize("features", [None, CONTRACT])
def test_contract_survives_metadata(features: FeatureContract | None) -> None:
    contract = Contract("FEATURES", "key", ("in1", "in2"), features)
    schema = pa.schema([("a", pa.int8())]).with_metadata(contract.to_metadata())
    assert Contract.from_schema(schema, source="x") == contract


def test_a_table_without_contract_or_of_another_version_is_refused() -> None:
    with pytest.raises(TableError, match="x: carries no contract"):
        Contract.from_schema(PROPOSALS.schema, source="x")
    metadata = Contract("PROPOSALS", "key", ()).to_metadata()
    newer = {key: value.replace(b'version": 2', b'version": 3') for key, value in metadata.items()}
    with pytest.raises(TableError, match=r"schema version 3, this program reads 2; make .* again"):
        Contract.from_schema(PROPOSALS.schema.with_metadata(newer), source="x")


def test_all_differences_between_feature_contracts_are_named() -> None:
    check_feature_contract(CONTRACT, CONTRACT.model_copy(), source="x")
    other = CONTRACT.model_copy(update={"backbone": "tiny", "stride_seconds": "1/2"})
    with pytest.raises(TableError) as caught:
        check_feature_contract(other, CONTRACT, source="x")
    assert str(caught.value) == (
        "x: features of another contract: backbone: 'tiny', needed 'slowfast_r50'; "
        "stride_seconds: '1/2', needed '8/15'"
    )
    assert other.clip_seconds == 0.5


@pytest.mark.parametrize("alignment", ["center", "start"])
@pytest.mark.parametrize("stride_seconds", ["1/2", "8/15", "1/3"])
def test_the_contract_and_the_grid_agree_on_the_clips_centres(
    alignment: Literal["center", "start"], stride_seconds: str
) -> None:
    grid = SamplingGrid(
        Fraction(15),
        Fraction(stride_seconds),
        frames_per_clip=32,
        short_side=1,
        alignment=alignment,
    )
    update = {"alignment": alignment, "stride_seconds": stride_seconds}
    contract = CONTRACT.model_copy(update=update)
    centers = contract.center_seconds(1000)
    assert centers.dtype == np.float64
    assert centers.tolist() == [grid.center_seconds(clip) for clip in range(1000)]
    assert contract.center_seconds(0).shape == (0,)


def test_features_from_elsewhere_may_not_know_how_frames_were_cut() -> None:
    unknown = dict.fromkeys(("short_side", "normalization", "decoder"))
    contract = FeatureContract.model_validate({**CONTRACT.model_dump(), **unknown})
    assert (contract.short_side, contract.precision, contract.value_type) == (
        None,
        "float32",
        "float32",
    )
    for field, value in (("precision", "half"), ("value_type", "float64"), ("alignment", "end")):
        with pytest.raises(ValueError, match=field):
            FeatureContract.model_validate({**CONTRACT.model_dump(), field: value})
