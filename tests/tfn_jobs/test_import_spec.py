"""The import spec refuses what contradicts itself, and says what the table will say."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.tfn_jobs.small_import import parsed, settings
from tfn_jobs.import_spec import ImportSpec
from tfn_platform.errors import SpecError
from tfn_platform.spec import load_spec, parse_spec


def test_the_contract_says_what_was_declared(tmp_path: Path) -> None:
    spec = parsed(tmp_path, weights="Kinetics", value_type="float16")
    contract = spec.contract
    assert (contract.backbone, contract.weights_hash) == ("i3d", "Kinetics")
    assert (contract.frame_rate, contract.stride_seconds) == ("15", "8/15")
    assert (contract.alignment, contract.value_type) == ("start", "float16")
    assert (contract.short_side, contract.normalization, contract.decoder) == (None, None, None)
    later = Fraction(31, 30) + Fraction(8, 15)
    assert contract.center_seconds(2).tolist() == [31 / 30, float(later)]
    assert spec.rule.clip_seconds == Fraction(32, 15)
    assert spec.layout.feature_dim == 2048


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "mat"}, "no feature format 'mat'; there are: csv, h5, npy, npz, pkl, pt"),
        ({"stride_seconds": 0}, "stride_seconds: must be positive"),
        ({"keys": ["{video_id}/rgb", "flow"]}, "keys: all of them must hold {video_id}, or none"),
        ({"files": "*.npy"}, "files: must hold once {video_id}"),
        ({"files": "{video_id}.h5", "keys": ["{video_id}"]}, "files: must not hold {video_id}"),
        ({"subsets": ["training"]}, "subsets: are those of `durations`"),
        ({"source": "/no/such"}, "no file or folder '/no/such'"),
        ({"durations_format": "xml"}, "no annotation format 'xml'"),
        ({"axes": "TF"}, "axes"),
        ({"stride_second": 1}, "unknown key; did you mean 'stride_seconds'"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        parsed(tmp_path, **changes)
    assert expected in str(caught.value)


def test_the_shipped_spec_loads(repository: Path, tmp_path: Path) -> None:
    """Its places are examples: a user writes down their own."""
    path = repository / "jobs" / "import-features.yaml"
    places = [f"{name}={tmp_path}" for name in ("source", "durations")]
    spec = load_spec(ImportSpec, path, overrides=places)
    assert spec.keys == ("slow_feature", "fast_feature")
    with pytest.raises(SpecError, match="no file or folder '/data/hacs/features/'"):
        load_spec(ImportSpec, path)


def test_durations_must_be_spoken_of(tmp_path: Path) -> None:
    """Checking nothing is a choice, not a default."""
    data = settings(tmp_path)
    del data["durations"]
    with pytest.raises(SpecError, match="durations: is needed"):
        parse_spec(ImportSpec, data, source="test")
