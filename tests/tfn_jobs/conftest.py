"""Small stores, specs and pipelines that the tests of the jobs share."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.tfn_jobs.small_pipeline import SmallPipeline
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.spec import parse_spec
from tfn_platform.store import Store

MakeSpec = Callable[..., PipelineSpec]

SPEC: dict[str, Any] = {
    "name": "small",
    "dataset": {"format": "synthetic", "num_training": 6, "num_validation": 6},
    "clips": {"short_side": 32, "frames_per_clip": 8, "crop": "center"},
    "backbone": {"architecture": "slowfast_tiny", "batch_clips": 2},
    "classifiers": [{"name": "mean"}, {"name": "other"}],
    "bmns": [{"name": "d8", "num_bins": 8}, {"name": "d12", "num_bins": 12}],
    "refiners": [{"name": "base"}, {"name": "full", "use_lstm": True}],
    "fusion": {"num_folds": 3, "num_bins": 8},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty storage root."""
    return Store.open(str(tmp_path / "root"))


@pytest.fixture
def spec_data() -> dict[str, Any]:
    """What a small, valid YAML holds; a test may change it."""
    return copy.deepcopy(SPEC)


@pytest.fixture
def make_spec(spec_data: dict[str, Any]) -> MakeSpec:
    """A function that gives the small spec with some sections replaced."""

    def make(**sections: Any) -> PipelineSpec:
        return parse_spec(PipelineSpec, {**spec_data, **sections}, source="small.yaml")

    return make


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Map rows right here instead of in Ray's tasks."""

    def map_rows(
        rows: Sequence[Any] | pa.Table, function: Callable[[Any], Any], *, ordered: bool = True
    ) -> Iterator[Any]:
        return map(function, rows.to_pylist() if isinstance(rows, pa.Table) else rows)

    for job in ("prepare", "propose", "synthesize"):
        monkeypatch.setattr(f"tfn_jobs.{job}.map_rows", map_rows)


@pytest.fixture
def small(store: Store) -> SmallPipeline:
    """Features and annotations of a few videos."""
    return SmallPipeline.make(store)


@pytest.fixture
def predicted(store: Store, in_process: None) -> SmallPipeline:
    """The same, and all that the members and their fusion predict."""
    return SmallPipeline.predicted(store)
