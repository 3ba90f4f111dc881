"""Extraction against a slow oracle: decode all, cut each clip by hand, one clip at a time."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from tests.tfn_jobs import small_extraction
from tests.tfn_jobs.conftest import MakeSpec
from tests.tfn_jobs.small_extraction import (
    assert_same_bits,
    features_of,
    make_job,
    make_videos,
    num_clips_of,
    oracle,
    stream_here,
    write_truncated,
)
from tfn_jobs import decode_actor, part_plan
from tfn_jobs import extract as extract_job
from tfn_jobs.backbone_actor import BackboneActor
from tfn_jobs.extract import extract
from tfn_models.backbones import SLOWFAST_TINY
from tfn_platform.cluster import ClusterTotals
from tfn_platform.datasets.synthetic_damage import DAMAGE_REASONS, Damage, damage_video
from tfn_platform.errors import StageError
from tfn_platform.feature_index import write_index
from tfn_platform.parquet import read_parts
from tfn_platform.store import Store
from tfn_platform.tables import DAMAGED, FEATURES, QUARANTINE, FeatureContract

FLOAT32 = {"feature_type": "float32"}


def figures(made: dict[str, int | str]) -> tuple[object, object]:
    """How many videos have features, and how many are of no use."""
    return made["videos"], made["quarantined"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_job, "stream_through", stream_here)
    monkeypatch.setattr(extract_job, "cluster_totals", lambda: ClusterTotals(4, 0, 4))
    monkeypatch.setattr(extract_job, "require_resources", lambda *_, **__: None)


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.usefixtures("without_ray")
def test_features_are_those_of_clips_cut_by_hand(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], crop: str
) -> None:
    clips = {"short_side": 32, "frames_per_clip": 8, "crop": crop, "stride_seconds": "8/15"}
    job = make_job(store, make_spec(clips=clips, extraction=FLOAT32), videos)
    assert figures(extract(job)) == (3, 1)
    found = features_of(job)
    assert sorted(found) == ["a", "b", "c"]
    for video_id, features in found.items():
        expected = oracle(job, videos[video_id])
        assert features.shape == expected.shape == (len(expected), SLOWFAST_TINY.feature_dim)
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
        assert np.abs(np.diff(features, axis=0)).max() > 1e-3
    quarantine = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    assert [(row["video_id"], row["reason"]) for row in quarantine] == [("damaged", "truncated")]
    table, contract = read_parts(job.folder, FEATURES)
    centers = table.filter(pc.equal(table["video_id"], "a"))["center_seconds"].to_pylist()
    assert centers == pytest.approx([(k + 0.5) * 8 / 15 for k in range(len(centers))])
    assert contract.features is not None and contract.features.stride_seconds == "8/15"


@pytest.mark.parametrize(
    ("backbone", "feature_dim", "normalization"),
    [
        ({"architecture": "i3d_inception"}, 1024, "mean 0.5, std 0.5, crop center"),
        ({"architecture": "i3d_inception", "mean": 0.4}, 1024, "mean 0.4, std 0.5, crop center"),
        (
            {"architecture": "mc3_18", "std": [0.2, 0.3, 0.4]},
            512,
            "mean 0.43216 0.394666 0.37645, std 0.2 0.3 0.4, crop center",
        ),
    ],
)
@pytest.mark.usefixtures("without_ray")
def test_each_architecture_gets_its_own_normalisation_unless_told(
    store: Store,
    make_spec: MakeSpec,
    videos: dict[str, Path],
    backbone: dict[str, Any],
    feature_dim: int,
    normalization: str,
) -> None:
    spec = make_spec(backbone={"batch_clips": 2, **backbone}, extraction=FLOAT32)
    job = make_job(store, spec, {"a": videos["a"]})
    assert figures(extract(job)) == (1, 0)
    features = features_of(job)["a"]
    expected = oracle(job, videos["a"])
    assert features.shape == expected.shape == (len(expected), feature_dim)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    contract = read_parts(job.folder, FEATURES)[1].features
    assert contract is not None
    assert (contract.feature_dim, contract.normalization) == (feature_dim, normalization)


@pytest.mark.parametrize("batching", ["best_fit", "fixed"])
@pytest.mark.usefixtures("without_ray")
def test_how_videos_are_cut_into_work_changes_no_bit(
    store: Store,
    make_spec: MakeSpec,
    videos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    batching: str,
) -> None:
    """Chunks of one batch, of several and of whole videos; calls of one chunk and of many."""
    spec = make_spec(extraction={"batching": batching, "feature_type": "float32"})
    results = []
    for number, (chunk_bytes, call) in enumerate([(64 << 20, 3), (1, 1), (200_000, 5)]):
        monkeypatch.setattr(decode_actor, "MAX_CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(small_extraction, "CHUNKS_PER_CALL", call)
        job = make_job(Store.open(f"{store.root}/{number}"), spec, videos)
        extract(job)
        results.append(features_of(job))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.usefixtures("without_ray")
def test_batches_precision_and_type_change_little(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path]
) -> None:
    """Against float32 in batches of two: other batches by rounding, narrower types by theirs."""

    def extracted(**extraction: str) -> tuple[np.ndarray, FeatureContract]:
        root = Store.open(f"{store.root}/{len(made)}")
        spec = make_spec(extraction={"feature_type": "float32", **extraction})
        job = make_job(root, spec, {"a": videos["a"]})
        extract(job)
        contract = read_parts(job.folder, FEATURES)[1].features
        assert contract is not None
        made.append(root)
        return features_of(job)["a"], contract

    made: list[Store] = []
    exact, contract = extracted()
    assert (exact.dtype, contract.value_type, contract.precision) == (
        np.float32,
        "float32",
        "float32",
    )
    scale = np.abs(exact).max()
    fixed, _ = extracted(batching="fixed")
    np.testing.assert_allclose(fixed, exact, rtol=0, atol=1e-5 * scale)
    half, contract = extracted(feature_type="float16")
    np.testing.assert_array_equal(half, exact.astype(np.float16))
    assert contract.value_type == "float16"
    coarse, contract = extracted(precision="bfloat16")
    assert contract.precision == "bfloat16"
    assert 1e-5 * scale < np.abs(coarse - exact).max() < 0.05 * scale


@pytest.mark.usefixtures("without_ray")
def test_a_killed_job_goes_on_with_the_missing_part(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_plan, "MAX_PART_VIDEOS", 1)
    job = make_job(store, make_spec(), videos)
    extract(job)
    folder = Path(store.root) / job.folder.table("features")
    parts = sorted(folder.glob("part-*.parquet"))
    assert len(parts) == 4
    lost = parts[1].read_bytes()
    parts[1].unlink()
    # An earlier part is not read again, so its video may be gone.
    hidden = videos["a"].with_suffix(".hidden")
    shutil.move(videos["a"], hidden)
    times = {part: part.stat().st_mtime_ns for part in parts if part != parts[1]}
    try:
        assert figures(extract(job)) == (3, 1)
    finally:
        shutil.move(hidden, videos["a"])
    assert {part: part.stat().st_mtime_ns for part in times} == times
    assert parts[1].read_bytes() == lost


@pytest.mark.usefixtures("without_ray")
def test_no_usable_video_is_an_error(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path]
) -> None:
    job = replace(
        make_job(store, make_spec(), {"damaged": videos["damaged"]}), max_quarantined_share=1.0
    )
    with pytest.raises(StageError, match="none of 1 videos could be decoded"):
        extract(job)


@pytest.mark.usefixtures("without_ray")
def test_too_many_unusable_videos_stop_the_job_and_lose_nothing(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path]
) -> None:
    job = make_job(store, make_spec(), videos)
    with pytest.raises(StageError, match=r"1 of 4 videos cannot be used.*truncated: 1"):
        extract(replace(job, max_quarantined_share=0.2))
    left = [path for path in (Path(store.root) / job.folder.relative).rglob("*") if path.is_file()]
    assert any(path.parent.name == "progress" for path in left)
    assert figures(extract(job)) == (3, 1)


@pytest.mark.usefixtures("without_ray")
def test_a_video_that_is_lost_is_not_committed(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs at a time may take each other's parts away."""
    job = make_job(store, make_spec(), videos)
    monkeypatch.setattr(extract_job, "write_index", lambda folder: write_index(folder) - 1)
    with pytest.raises(StageError, match="of 4 videos 2 have features and 1 are in quarantine"):
        extract(job)


@pytest.mark.usefixtures("without_ray")
def test_a_damaged_video_is_used_as_far_as_it_goes_if_asked(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path]
) -> None:
    job = make_job(store, make_spec(extraction={"damage": "salvage", **FLOAT32}), videos)
    assert figures(extract(job)) == (4, 0)
    (row,) = read_parts(job.folder, DAMAGED)[0].to_pylist()
    assert (row["video_id"], row["reason"]) == ("damaged", "truncated")
    found = features_of(job)["damaged"]
    expected = oracle(job, videos["damaged"].with_name("whole.mp4"))
    assert 1 <= len(found) < len(expected)
    # The last clips reach beyond the cut, where the last frame stands in.
    num_whole = len(found) - 2
    np.testing.assert_allclose(found[:num_whole], expected[:num_whole], rtol=1e-4, atol=1e-5)


def test_number_of_actors_changes_no_bit(
    store: Store,
    make_spec: MakeSpec,
    videos: dict[str, Path],
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two actors of each kind in Ray, and one in this process, which the oracle has checked."""
    spec = make_spec(resources={"model_actors": 2, "decode_actors": 2})
    spread = make_job(Store.open(f"{store.root}/spread"), spec, videos)
    assert figures(extract(spread)) == (3, 1)
    monkeypatch.setattr(extract_job, "stream_through", stream_here)
    here = make_job(Store.open(f"{store.root}/here"), spec, videos)
    extract(here)
    assert_same_bits(features_of(spread), features_of(here))


class _NoNetwork(BackboneActor):
    """Counts clips instead of looking at them."""

    def _forward(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(clips), SLOWFAST_TINY.feature_dim)


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_real_videos_have_the_clips_of_their_duration(
    store: Store,
    make_spec: MakeSpec,
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every real video is decoded to the end; planted damage is quarantined with its reason."""
    monkeypatch.setattr(extract_job, "BackboneActor", _NoNetwork)
    real = sorted((shared_dir / "data" / "videos").iterdir())
    whole = shared_dir / "data" / "videos" / "v_ZNVhz7ctTq0.mp4"
    paths = {path.name: path for path in real}
    rng = np.random.default_rng(0)
    for kind in Damage:
        path = tmp_path / f"{kind}.mp4"
        if kind in (Damage.TRUNCATED_FAST_START, Damage.TRUNCATED_INDEX):
            write_truncated(whole, path, damage=kind)
        else:
            path.write_bytes(damage_video(whole.read_bytes(), kind, rng=rng))
        paths[str(kind)] = path
    job = make_job(store, make_spec(clips={"short_side": 32, "frames_per_clip": 8}), paths)
    assert figures(extract(job)) == (len(real), len(Damage))
    lengths = {video_id: len(features) for video_id, features in features_of(job).items()}
    assert lengths == {path.name: num_clips_of(path, Fraction(1, 2)) for path in real}
    quarantine = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    reasons = {row["video_id"]: row["reason"] for row in quarantine}
    assert reasons == {str(kind): str(reason) for kind, reason in DAMAGE_REASONS.items()}
