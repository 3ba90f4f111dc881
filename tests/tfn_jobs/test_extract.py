"""Extraction against a slow oracle: decode all, cut each clip by hand, one clip at a time."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from tests.tfn_jobs.conftest import MakeSpec
from tfn_jobs import extract as extract_job
from tfn_jobs.extract import BackboneActor, ExtractJob, extract
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_models.backbones import SLOWFAST_TINY
from tfn_models.backbones.slowfast import build_slowfast
from tfn_platform.checkpoint import load_torch, save_torch
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.datasets.synthetic_damage import DAMAGE_REASONS, Damage, damage_video
from tfn_platform.errors import StageError
from tfn_platform.feature_index import FeatureReader
from tfn_platform.map_table import ModelStage
from tfn_platform.parquet import read_parts, write_table
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES, QUARANTINE, VIDEOS
from tfn_platform.video import probe_video, read_ticks

PREPARE, FINETUNE = Stage("prepare", {}), Stage("finetune", {})
EXTRACT = Stage("extract", {}, (PREPARE, FINETUNE))
SMALL = SyntheticConfig(
    num_training=4,
    num_validation=0,
    seed=1,
    min_duration_seconds=2,
    max_duration_seconds=4,
    min_segment_seconds=0.6,
    max_segment_seconds=0.8,
    min_short_side=40,
    max_short_side=48,
)


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


def write_truncated(whole: Path, target: Path, *, damage: Damage) -> Path:
    """The same video with its index in front, or at the end, cut off."""
    options = {"movflags": "faststart"} if damage is Damage.TRUNCATED_FAST_START else {}
    with (
        av.open(str(whole)) as source,
        av.open(str(target), "w", format="mp4", container_options=options) as container,
    ):
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                container.mux(packet)
    rng = np.random.default_rng(0)
    target.write_bytes(damage_video(target.read_bytes(), damage, rng=rng))
    return target


def make_job(store: Store, spec: PipelineSpec, paths: dict[str, Path]) -> ExtractJob:
    rows = {
        "video_id": list(paths),
        "uri": [str(path) for path in paths.values()],
        "subset": ["training"] * len(paths),
        "duration_seconds": [1.0] * len(paths),
        "frame_rate": [25.0] * len(paths),
        "width": [1] * len(paths),
        "height": [1] * len(paths),
        "size_bytes": [1] * len(paths),
        "fingerprint": [""] * len(paths),
    }
    prepared, backbone = PREPARE.folder(store), FINETUNE.folder(store)
    table = pa.table(rows, schema=VIDEOS.schema)
    write_table(prepared, VIDEOS, table, contract=PREPARE.contract(VIDEOS))
    PREPARE.commit(store, seconds=0)
    torch.manual_seed(0)
    config = type(SLOWFAST_TINY)(**{**vars(SLOWFAST_TINY), "num_classes": 3})
    model = build_slowfast(config)
    # Statistics of another clip than the one looked at, as after a training.
    model.train()
    for _ in range(3):
        model(torch.randn(2, 3, 8, 32, 32))
    save_torch(store, backbone.weights, model.state_dict())
    FINETUNE.commit(store, seconds=0)
    return ExtractJob(spec, EXTRACT, prepared, backbone, EXTRACT.folder(store))


def features_of(job: ExtractJob) -> dict[str, np.ndarray]:
    if not job.folder.is_done:
        job.stage.commit(job.folder.store, seconds=0)
    reader = FeatureReader(job.folder)
    return {video_id: reader.read(video_id) for video_id in reader.video_ids}


def map_here(
    rows: Sequence[Any], expand: Callable[[Any], Iterator[Any]], model: ModelStage, **_: Any
) -> Iterator[Any]:
    """Run the decoding and one actor right here, with the rows in a worse order than Ray's."""
    actor = model.actor(**model.arguments)
    expanded = [made for row in rows for made in expand(row)][::-1]
    for begin in range(0, len(expanded), model.rows_per_call):
        batch = pa.Table.from_pylist(expanded[begin : begin + model.rows_per_call])
        yield from actor(batch).to_pylist()


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_job, "map_through_model", map_here)


@torch.inference_mode()
def oracle(job: ExtractJob, path: Path) -> np.ndarray:
    """Each clip read by itself from the file, and passed through the network by itself."""
    clips, backbone = job.spec.clips, job.spec.backbone
    rate, stride = Fraction(clips.frame_rate), Fraction(clips.stride_seconds)
    config = type(SLOWFAST_TINY)(**{**vars(SLOWFAST_TINY), "num_classes": 3})
    model = build_slowfast(config).eval()
    model.load_state_dict(load_torch(job.backbone.store, job.backbone.weights))
    features = []
    for clip in range(num_clips_of(path, stride)):
        centre = (clip + Fraction(1, 2)) * stride * rate
        first = math.floor(centre - Fraction(clips.frames_per_clip - 1, 2) + Fraction(1, 2))
        frames = read_ticks(
            str(path),
            frame_rate=rate,
            first_tick=first,
            num_ticks=clips.frames_per_clip,
            short_side=clips.short_side,
        )
        height, width = frames.shape[1:3]
        if clips.crop == "center":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            frames = frames[:, top : top + side, left : left + side]
        pixels = torch.from_numpy(frames.copy()).float() / 255
        normal = (pixels - backbone.mean) / backbone.std
        features.append(model.forward_features(normal.permute(3, 0, 1, 2)[None])[0].numpy())
    return np.stack(features)


def num_clips_of(path: Path, stride: Fraction) -> int:
    seconds = Fraction(probe_video(str(path)).duration_seconds).limit_denominator(90_000)
    return max(1, math.floor(seconds / stride + Fraction(1, 2)))


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for video_id in expected:
        np.testing.assert_array_equal(found[video_id], expected[video_id], err_msg=video_id)


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
