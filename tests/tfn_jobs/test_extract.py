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

from tests.tfn_jobs.conftest import MakeSpec
from tests.tfn_jobs.small_extraction import (
    SMALL,
    assert_same_bits,
    features_of,
    make_job,
    map_here,
    num_clips_of,
    oracle,
    write_truncated,
)
from tfn_jobs import extract as extract_job
from tfn_jobs.extract import BackboneActor, extract
from tfn_models.backbones import SLOWFAST_TINY
from tfn_platform.datasets.synthetic import render_video
from tfn_platform.datasets.synthetic_damage import DAMAGE_REASONS, Damage, damage_video
from tfn_platform.errors import StageError
from tfn_platform.parquet import read_parts
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES, QUARANTINE


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three short videos, of several rates and sizes, and one that ends too early."""
    folder = tmp_path_factory.mktemp("videos")
    paths = {}
    for number, name in enumerate(("a", "b", "c")):
        paths[name] = folder / f"{name}.mp4"
        paths[name].write_bytes(render_video(SMALL, number).data)
    longer = replace(SMALL, min_duration_seconds=6.0, max_duration_seconds=7.0)
    (folder / "whole.mp4").write_bytes(render_video(longer, 3).data)
    paths["damaged"] = write_truncated(
        folder / "whole.mp4", folder / "damaged.mp4", damage=Damage.TRUNCATED_FAST_START
    )
    return paths


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_job, "map_through_model", map_here)


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.usefixtures("without_ray")
def test_features_are_those_of_clips_cut_by_hand(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], crop: str
) -> None:
    clips = {"short_side": 32, "frames_per_clip": 8, "crop": crop, "stride_seconds": "8/15"}
    job = make_job(store, make_spec(clips=clips), videos)
    assert extract(job) == {"videos": 3, "quarantined": 1}
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
    job = make_job(store, make_spec(backbone={"batch_clips": 2, **backbone}), {"a": videos["a"]})
    assert extract(job) == {"videos": 1, "quarantined": 0}
    features = features_of(job)["a"]
    expected = oracle(job, videos["a"])
    assert features.shape == expected.shape == (len(expected), feature_dim)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    contract = read_parts(job.folder, FEATURES)[1].features
    assert contract is not None
    assert (contract.feature_dim, contract.normalization) == (feature_dim, normalization)


@pytest.mark.usefixtures("without_ray")
def test_how_videos_are_cut_into_work_changes_no_bit(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for number, (chunk, call, part) in enumerate([(16, 4, 64), (1, 1, 1), (3, 5, 2)]):
        monkeypatch.setattr(extract_job, "CLIPS_PER_CHUNK", chunk)
        monkeypatch.setattr(extract_job, "CHUNKS_PER_CALL", call)
        monkeypatch.setattr(extract_job, "VIDEOS_PER_PART", part)
        job = make_job(Store.open(f"{store.root}/{number}"), make_spec(), videos)
        extract(job)
        results.append(features_of(job))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.usefixtures("without_ray")
def test_a_killed_job_goes_on_with_the_missing_parts(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_job, "VIDEOS_PER_PART", 1)
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
        assert extract(job) == {"videos": 3, "quarantined": 1}
    finally:
        shutil.move(hidden, videos["a"])
    assert {part: part.stat().st_mtime_ns for part in times} == times
    assert parts[1].read_bytes() == lost


@pytest.mark.usefixtures("without_ray")
def test_no_usable_video_is_an_error(
    store: Store, make_spec: MakeSpec, videos: dict[str, Path]
) -> None:
    job = make_job(store, make_spec(), {"damaged": videos["damaged"]})
    with pytest.raises(StageError, match="none of 1 videos could be decoded"):
        extract(job)


def test_number_of_actors_changes_no_bit(
    store: Store,
    make_spec: MakeSpec,
    videos: dict[str, Path],
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two actors in Ray and one in this process, which the oracle above has checked."""
    spec = make_spec(resources={"model_actors": 2})
    spread = make_job(Store.open(f"{store.root}/spread"), spec, videos)
    assert extract(spread) == {"videos": 3, "quarantined": 1}
    monkeypatch.setattr(extract_job, "map_through_model", map_here)
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
    assert extract(job) == {"videos": len(real), "quarantined": len(Damage)}
    lengths = {video_id: len(features) for video_id, features in features_of(job).items()}
    assert lengths == {path.name: num_clips_of(path, Fraction(1, 2)) for path in real}
    quarantine = read_parts(job.folder, QUARANTINE)[0].to_pylist()
    reasons = {row["video_id"]: row["reason"] for row in quarantine}
    assert reasons == {str(kind): str(reason) for kind, reason in DAMAGE_REASONS.items()}
