"""A few short videos to extract, and what must come out: each clip cut by hand, one at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import torch

from tfn_jobs.backbones import (
    build_network,
    effective_config,
    pick_architecture,
    read_network_config,
    write_network_config,
)
from tfn_jobs.extract import ExtractJob
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.checkpoint import load_torch, save_torch
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.datasets.synthetic_damage import Damage, damage_video
from tfn_platform.feature_index import FeatureReader
from tfn_platform.map_table import ActorStage
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tables import QUARANTINE, VIDEOS
from tfn_platform.video import probe_video, read_ticks

PREPARE, FINETUNE = Stage("prepare", {}), Stage("finetune", {})
EXTRACT = Stage("extract", {}, (PREPARE, FINETUNE))
CHUNKS_PER_CALL = 3
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


def make_videos(folder: Path) -> dict[str, Path]:
    """Three short videos, of several rates and sizes, and one that ends too early."""
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
    unusable = QUARANTINE.schema.empty_table()
    write_table(prepared, QUARANTINE, unusable, contract=PREPARE.contract(QUARANTINE))
    PREPARE.commit(store, seconds=0)
    torch.manual_seed(0)
    asked = spec.backbone
    config = effective_config(pick_architecture(asked.architecture), mean=asked.mean, std=asked.std)
    config = replace(config, num_classes=3)
    write_network_config(backbone, config)
    model = build_network(config)
    # Statistics of another clip than the one looked at, as after a training.
    model.train()
    for _ in range(3):
        model(torch.randn(2, 3, 8, 32, 32))
    save_torch(store, backbone.weights, model.state_dict())
    FINETUNE.commit(store, seconds=0)
    return ExtractJob(spec, EXTRACT, prepared, backbone, EXTRACT.folder(store), 0.9)


def features_of(job: ExtractJob) -> dict[str, np.ndarray]:
    if not job.folder.is_done:
        job.stage.commit(job.folder.store, seconds=0)
    reader = FeatureReader(job.folder)
    return {video_id: reader.read(video_id) for video_id in reader.video_ids}


def stream_here(
    tables: Sequence[pa.Table], stages: Sequence[ActorStage], **_: object
) -> Iterator[pa.Table]:
    """Run one actor of each kind right here, with the rows in a worse order than Ray's."""
    first, *others = (stage.actor(**stage.arguments) for stage in stages)
    chunks = [chunk for table in tables for chunk in first(table)][::-1]
    for begin in range(0, len(chunks), CHUNKS_PER_CALL):
        rows = pa.concat_tables(chunks[begin : begin + CHUNKS_PER_CALL])
        for actor in others:
            rows = actor(rows)
        yield rows


@torch.inference_mode()
def oracle(job: ExtractJob, path: Path) -> np.ndarray:
    """Each clip read by itself from the file, and passed through the network by itself."""
    clips = job.spec.clips
    rate, stride = Fraction(clips.frame_rate), Fraction(clips.stride_seconds)
    config = read_network_config(job.backbone, job.spec.backbone.architecture)
    model = build_network(config).eval()
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
        normal = (pixels - torch.tensor(config.mean)) / torch.tensor(config.std)
        features.append(model.forward_features(normal.permute(3, 0, 1, 2)[None])[0].numpy())
    return np.stack(features)


def num_clips_of(path: Path, stride: Fraction) -> int:
    seconds = Fraction(probe_video(str(path)).duration_seconds).limit_denominator(90_000)
    return max(1, math.floor(seconds / stride + Fraction(1, 2)))


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for video_id in expected:
        np.testing.assert_array_equal(found[video_id], expected[video_id], err_msg=video_id)
