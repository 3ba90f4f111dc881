"""Job: turn videos into FEATURES: decode tasks, model actors, one Parquet part a group of videos.

Videos are grouped into parts beforehand. A part is written, whole, once each of its videos has all
its clips or is in quarantine, so a job that was killed goes on with the parts that are missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tfn_jobs.backbones import build_network, read_network_config
from tfn_jobs.console import progress_bar
from tfn_jobs.feature_parts import FeatureParts
from tfn_jobs.frame_crop import center_square
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_models.backbones.frames import normalize_frames
from tfn_platform.checkpoint import load_torch, weights_hash
from tfn_platform.errors import StageError
from tfn_platform.feature_index import write_index
from tfn_platform.map_table import ModelStage, map_through_model
from tfn_platform.parquet import part_name, read_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import VIDEOS, FeatureContract
from tfn_platform.training import set_determinism
from tfn_platform.video import FrameChunk, SamplingGrid, VideoError, iter_chunks

VIDEOS_PER_PART = 64
CLIPS_PER_CHUNK = 16
CHUNKS_PER_CALL = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class ExtractJob:
    """What extraction reads and writes."""

    spec: PipelineSpec
    stage: Stage
    prepared: StageFolder
    backbone: StageFolder
    folder: StageFolder


def extract(job: ExtractJob) -> dict[str, int]:
    """Extract the features of all usable videos that are not in a finished part yet.

    Returns:
        Figures for the commit: videos with features, videos in quarantine, clips.

    Raises:
        StageError: no video could be decoded.
    """
    videos, _ = read_table(job.prepared, VIDEOS)
    rows = sorted(videos.to_pylist(), key=lambda row: row["video_id"])
    parts = [
        rows[begin : begin + VIDEOS_PER_PART] for begin in range(0, len(rows), VIDEOS_PER_PART)
    ]
    made = set(job.folder.store.list_files(job.folder.table("features")))
    missing = {number: part for number, part in enumerate(parts) if part_name(number) not in made}
    todo = [{**video, "part": number} for number, part in missing.items() for video in part]
    contract = feature_contract(job)
    done = len(rows) - len(todo)
    with progress_bar(len(rows), what="extract", unit="video", done=done) as bar:
        gathered = FeatureParts(
            job.stage,
            job.folder,
            grid=sampling_grid(job.spec),
            contract=contract,
            part_sizes={number: len(part) for number, part in missing.items()},
        )
        for row in map_through_model(
            todo,
            _Decode(job.spec),
            _model_stage(job),
            num_cpus=job.spec.resources.decode_cpus,
        ):
            bar.update(gathered.add(row))
    num_videos = write_index(job.folder)
    if num_videos == 0:
        raise StageError(f"{job.folder.uri}: none of {len(rows)} videos could be decoded")
    return {"videos": num_videos, "quarantined": len(rows) - num_videos}


def sampling_grid(spec: PipelineSpec) -> SamplingGrid:
    """The spec's sampling grid."""
    clips = spec.clips
    return SamplingGrid(
        Fraction(clips.frame_rate),
        Fraction(clips.stride_seconds),
        frames_per_clip=clips.frames_per_clip,
        short_side=clips.short_side,
    )


def feature_contract(job: ExtractJob) -> FeatureContract:
    """How the features are made, for those who read them."""
    clips, architecture = job.spec.clips, job.spec.backbone.architecture
    network = read_network_config(job.backbone, architecture)
    return FeatureContract(
        backbone=architecture,
        weights_hash=weights_hash(load_torch(job.backbone.store, job.backbone.weights)),
        feature_dim=network.feature_dim,
        frames_per_clip=clips.frames_per_clip,
        frame_rate=clips.frame_rate,
        stride_seconds=clips.stride_seconds,
        alignment="center",
        short_side=clips.short_side,
        normalization=f"mean {_each(network.mean)}, std {_each(network.std)}, crop {clips.crop}",
        decoder=f"PyAV {av.__version__}",
    )


def _each(channels: tuple[float, float, float]) -> str:
    """Numbers of red, green and blue; only one where they are the same."""
    numbers = channels[:1] if len(set(channels)) == 1 else channels
    return " ".join(f"{number:g}" for number in numbers)


class _Decode:
    """One video -> its chunks of frames, then a row with the number of clips, or what failed."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec

    def __call__(self, row: Row) -> Iterator[Row]:
        common = {"video_id": row["video_id"], "uri": row["uri"], "part": row["part"]}
        num_clips = 0
        try:
            grid = sampling_grid(self._spec)
            for chunk in iter_chunks(row["uri"], grid, clips_per_chunk=CLIPS_PER_CHUNK):
                num_clips += chunk.num_clips
                yield _chunk_row(common, chunk, square=self._spec.clips.crop == "center")
        except VideoError as error:
            yield _end_row(common, reason=str(error.reason), detail=error.detail)
            return
        yield _end_row(common, num_clips=num_clips)


def _chunk_row(common: Row, chunk: FrameChunk, *, square: bool) -> Row:
    frames = center_square(chunk.frames) if square else chunk.frames
    return {
        **common,
        "first_clip": chunk.first_clip,
        "num_clips": chunk.num_clips,
        "first_tick": chunk.first_tick,
        "height": frames.shape[1],
        "width": frames.shape[2],
        "frames": np.ascontiguousarray(frames).tobytes(),
        "is_end": False,
        "reason": "",
        "detail": "",
    }


def _end_row(common: Row, *, num_clips: int = 0, reason: str = "", detail: str = "") -> Row:
    place = {"first_clip": 0, "num_clips": num_clips, "first_tick": 0, "height": 0, "width": 0}
    return {**common, **place, "frames": b"", "is_end": True, "reason": reason, "detail": detail}


def _model_stage(job: ExtractJob) -> ModelStage:
    resources = job.spec.resources
    return ModelStage(
        BackboneActor,
        {"spec": job.spec, "backbone": job.backbone},
        num_actors=resources.model_actors,
        rows_per_call=CHUNKS_PER_CALL,
        num_cpus=resources.model_cpus,
        num_gpus=resources.model_gpus,
    )


class BackboneActor:
    """Holds the backbone; replaces the frames of each chunk by the features of its clips."""

    def __init__(self, spec: PipelineSpec, backbone: StageFolder) -> None:
        """Load the weights."""
        set_determinism(seed=spec.seed, num_threads=spec.backbone.num_threads)
        self._spec = spec
        self._device = torch.device("cuda" if spec.resources.model_gpus else "cpu")
        self._network = read_network_config(backbone, spec.backbone.architecture)
        model = build_network(self._network)
        model.load_state_dict(load_torch(backbone.store, backbone.weights))
        self._model = model.to(self._device).eval()
        self._grid = sampling_grid(spec)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Chunks in, the same rows with ``features`` (float32 bytes [clips, F]) out."""
        rows = batch.to_pylist()
        windows = [self._windows(row) for row in rows]
        features = iter(self._features([clip for clips in windows for clip in clips]))
        made = [b"".join(next(features).tobytes() for _ in clips) for clips in windows]
        return batch.drop_columns(["frames"]).append_column(
            "features", pa.array(made, type=pa.large_binary())
        )

    def _windows(self, row: Row) -> list[NDArray[np.uint8]]:
        """Cut a chunk into clips [L, H, W, 3]; they share the chunk's memory."""
        if row["is_end"]:
            return []
        frames = np.frombuffer(row["frames"], np.uint8).reshape(-1, row["height"], row["width"], 3)
        starts = [
            self._grid.first_tick(row["first_clip"] + clip) - row["first_tick"]
            for clip in range(row["num_clips"])
        ]
        return [frames[start : start + self._grid.frames_per_clip] for start in starts]

    @torch.inference_mode()
    def _features(self, windows: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Features of clips; batches have one shape, so that a clip's result is always the same."""
        features: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(windows)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, window in enumerate(windows):
            by_shape.setdefault(window.shape, []).append(position)
        size = self._spec.backbone.batch_clips
        for positions in by_shape.values():
            for begin in range(0, len(positions), size):
                chosen = positions[begin : begin + size]
                padded = chosen + chosen[-1:] * (size - len(chosen))
                clips = torch.from_numpy(np.stack([windows[p] for p in padded]))
                values = self._forward(clips).cpu().numpy()
                for position, value in zip(chosen, values, strict=False):
                    features[position] = value
        return features

    def _forward(self, clips: torch.Tensor) -> torch.Tensor:
        mean, std = self._network.mean, self._network.std
        normalized = normalize_frames(clips.to(self._device), mean=mean, std=std)
        return self._model.forward_features(normalized).float()
