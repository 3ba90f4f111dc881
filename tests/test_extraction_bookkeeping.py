"""What the driver of an extraction keeps in memory, and what it checks in the end."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.tfn_jobs.conftest import MakeSpec, make_spec, spec_data, store
from tests.tfn_jobs.small_extraction import make_job, make_videos, stream_here
from tfn_jobs import extract as extract_job
from tfn_jobs.extract import extract
from tfn_platform.cluster import ClusterTotals
from tfn_platform.errors import StageError
from tfn_platform.heap import KEEP_FREED_MEMORY
from tfn_platform.map_table import ActorStage
from tfn_platform.parquet import read_table
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import Contract, Table

__all__ = ["make_spec", "spec_data", "store"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_job, "stream_through", stream_here)
    monkeypatch.setattr(extract_job, "cluster_totals", lambda: ClusterTotals(4, 0, 4))
    monkeypatch.setattr(extract_job, "require_resources", lambda *_, **__: None)


def test_features_of_another_video_are_not_committed(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number may be right all the same."""
    job = make_job(store, make_spec(), {"a": videos["a"], "b": videos["b"]})
    index = pa.table({"video_id": ["a", "stranger"]})
    monkeypatch.setattr(extract_job, "read_index", lambda folder: index)
    with pytest.raises(StageError, match="another run works in the same place"):
        extract(job)


def test_the_table_of_videos_is_not_kept_while_features_are_made(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was, besides the plan: at half a million videos, 100 MB more from beginning to end."""
    kept: list[weakref.ref[pa.Table]] = []

    def read(folder: StageFolder, table: Table) -> tuple[pa.Table, Contract]:
        rows, contract = read_table(folder, table)
        kept.append(weakref.ref(rows))
        return rows, contract

    def stream(tables: Sequence[pa.Table], stages: Sequence[ActorStage], **_: object) -> Any:
        assert [reference() for reference in kept] == [None, None]
        return stream_here(tables, stages)

    monkeypatch.setattr(extract_job, "read_table", read)
    monkeypatch.setattr(extract_job, "stream_through", stream)
    extract(make_job(store, make_spec(), {"a": videos["a"]}))


def test_the_backbones_actors_keep_freed_memory(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[dict[str, str]] = []

    def stream(tables: Sequence[pa.Table], stages: Sequence[ActorStage], **_: object) -> Any:
        environments.extend(stage.environment for stage in stages)
        return stream_here(tables, stages)

    monkeypatch.setattr(extract_job, "stream_through", stream)
    extract(make_job(store, make_spec(), {"a": videos["a"]}))
    assert environments == [{}, KEEP_FREED_MEMORY]
