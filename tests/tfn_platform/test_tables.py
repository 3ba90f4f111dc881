"""Table schemas and contracts: what differs is refused and named."""

import pyarrow as pa
import pytest

from tfn_platform.errors import TableError
from tfn_platform.tables import (
    ANNOTATIONS,
    FEATURES,
    PROPOSALS,
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
            "column 'feature' of FEATURES must be",
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
    newer = {key: value.replace(b'version": 1', b'version": 2') for key, value in metadata.items()}
    with pytest.raises(TableError, match=r"schema version 2, this program reads 1; make .* again"):
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
