"""The two sides that `extraction_floor` compares, each a command of its own."""

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from tests.benchmarks.extraction_floor import NUM_LOOPS
from tfn_jobs.backbones import build_network, pick_architecture, write_network_config
from tfn_models.backbones.frames import normalize_frames
from tfn_platform.checkpoint import load_torch, save_torch
from tfn_platform.stages import Stage
from tfn_platform.store import Store

FRAMES_PER_CLIP, FRAME_RATE, STRIDE = 32, 15, Fraction(1, 2)
PREPARE, FINETUNE = Stage("prepare", {}), Stage("finetune", {})


def weights(folder: Path) -> None:
    """Save a network with random weights, for both sides."""
    architecture = _settings(folder)["architecture"]
    store, config = Store.open(str(folder)), pick_architecture(architecture)
    backbone = FINETUNE.folder(store)
    torch.manual_seed(0)
    write_network_config(backbone, config)
    save_torch(store, backbone.weights, build_network(config).state_dict())
    FINETUNE.commit(store, seconds=0)


def loop(folder: Path, videos: str, number: str) -> None:
    """Decode, resize, and run the backbone: nothing that the work does not need."""
    settings = _settings(folder)
    torch.set_num_threads(1)
    config = pick_architecture(settings["architecture"])
    store = Store.open(str(folder))
    model = build_network(config)
    model.load_state_dict(load_torch(store, FINETUNE.folder(store).weights))
    model.eval()
    made = {}
    for path in sorted((folder / videos).glob("*.mp4"))[int(number) :: NUM_LOOPS]:
        frames, num_clips = _frames(path, settings["short_side"])
        starts = [_first_tick(clip) for clip in range(num_clips)]
        ticks = [
            np.clip(np.arange(start, start + FRAMES_PER_CLIP), 0, len(frames) - 1)
            for start in starts
        ]
        features = []
        for begin in range(0, num_clips, settings["batch_clips"]):
            clips = np.stack([frames[t] for t in ticks[begin : begin + settings["batch_clips"]]])
            with torch.inference_mode():
                batch = normalize_frames(torch.from_numpy(clips), mean=config.mean, std=config.std)
                features.append(model.forward_features(batch).numpy())
        made[path.stem] = np.concatenate(features)
    np.savez(folder / f"loop_{number}.npz", **made)


def _frames(path: Path, short_side: int) -> tuple[NDArray[np.uint8], int]:
    """The central squares of the frames at the ticks and of the last frame, and how many clips."""
    images = []
    reformatter = VideoReformatter()

    def resized(frame: av.VideoFrame) -> NDArray[np.uint8]:
        width = round(frame.width * short_side / frame.height)
        kernel = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        image = reformatter.reformat(
            frame, width=width, height=short_side, format="rgb24", interpolation=kernel, threads=1
        ).to_ndarray()
        left = (width - short_side) // 2
        return image[:, left : left + short_side]

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate = stream.average_rate
        assert rate is not None
        step = int(rate / FRAME_RATE)
        num_frames = 0
        for frame in container.decode(stream):
            if num_frames % step == 0:
                images.append(resized(frame))
            num_frames += 1
        images.append(resized(frame))
        num_clips = max(1, int(num_frames / rate / STRIDE + Fraction(1, 2)))
    return np.stack(images), num_clips


def _first_tick(clip: int) -> int:
    centre = STRIDE * FRAME_RATE * (clip + Fraction(1, 2))
    return (centre - Fraction(FRAMES_PER_CLIP - 1, 2) + Fraction(1, 2)).__floor__()


def extract(folder: Path, videos: str) -> None:
    """The job of this project, from the table of videos to the features."""
    from tfn_jobs.extract import ExtractJob
    from tfn_jobs.extract import extract as run
    from tfn_jobs.pipeline_spec import PipelineSpec
    from tfn_platform.cluster import connection
    from tfn_platform.feature_index import FeatureReader
    from tfn_platform.parquet import write_table
    from tfn_platform.spec import parse_spec
    from tfn_platform.tables import QUARANTINE, VIDEOS

    settings = _settings(folder)
    store = Store.open(str(folder))
    stage = Stage("extract", {"videos": videos}, (PREPARE, FINETUNE))
    prepared = Stage("prepare", {"videos": videos}).folder(store)
    paths = sorted((folder / videos).glob("*.mp4"))
    defaults = {"subset": "", "fingerprint": "", "duration_seconds": 60.0}
    rows = [
        {
            **dict.fromkeys(("frame_rate", "width", "height", "size_bytes"), 1),
            **defaults,
            "video_id": path.stem,
            "uri": str(path),
        }
        for path in paths
    ]
    table = pa.Table.from_pylist(rows, schema=VIDEOS.schema)
    write_table(prepared, VIDEOS, table, contract=PREPARE.contract(VIDEOS))
    unusable = QUARANTINE.schema.empty_table()
    write_table(prepared, QUARANTINE, unusable, contract=PREPARE.contract(QUARANTINE))
    prepared.commit({})
    spec = parse_spec(PipelineSpec, _spec(settings), source="benchmark")
    with connection(None):
        job = ExtractJob(spec, stage, prepared, FINETUNE.folder(store), stage.folder(store), 0.0)
        run(job)
        (folder / "spilled.json").write_text(json.dumps(_spilled_bytes()))
    stage.commit(store, seconds=0)
    reader = FeatureReader(stage.folder(store))
    np.savez(folder / "ours.npz", **{name: reader.read(name) for name in reader.video_ids})


def _spilled_bytes() -> int:
    """What Ray has moved from the object store to a disk since it started."""
    from ray._private import internal_api, worker

    state = internal_api.get_state_from_address(worker.global_worker.gcs_client.address)
    reply = internal_api.get_memory_info_reply(state)
    return int(reply.store_stats.spilled_bytes_total)


def _spec(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "floor",
        "until": "extract",
        "dataset": {"format": "synthetic"},
        "backbone": {
            "architecture": settings["architecture"],
            "batch_clips": settings["batch_clips"],
        },
        "clips": {"short_side": settings["short_side"], "crop": "center"},
    }


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    return settings


if __name__ == "__main__":
    _, what, place, *others = sys.argv
    {"weights": weights, "loop": loop, "extract": extract}[what](Path(place), *others)
