"""The backbone half of extraction: chunks of frames in, the features of their clips out."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfn_jobs.backbones import build_network, read_network_config
from tfn_jobs.clip_batches import ClipBatch, best_fit_batches, fixed_batches
from tfn_jobs.decode_actor import CHUNK_SCHEMA
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_models.backbones.frames import normalize_frames
from tfn_platform.checkpoint import load_torch
from tfn_platform.store import StageFolder
from tfn_platform.training import set_determinism

TORCH_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FEATURE_SCHEMA = pa.schema(
    [
        *(field for field in CHUNK_SCHEMA if field.name != "frames"),
        pa.field("features", pa.large_binary()),
    ]
)
"""Of a chunk: the bytes of its features [clips, F]."""


@dataclass(frozen=True)
class _Chunk:
    """Frames [n, H, W, 3] uint8 on the device, and the first frame of each of their clips."""

    frames: Tensor
    starts: list[int]


class BackboneActor:
    """Holds the backbone; replaces the frames of each chunk by the features of its clips."""

    def __init__(self, spec: PipelineSpec, backbone: StageFolder, device: str) -> None:
        """Load the weights onto a device, ``cpu`` or ``cuda``."""
        set_determinism(seed=spec.seed, num_threads=spec.backbone.num_threads)
        self._spec = spec
        self._device = torch.device(device)
        self._network = read_network_config(backbone, spec.backbone.architecture)
        self._type = TORCH_TYPES[spec.extraction.precision]
        model = build_network(self._network)
        model.load_state_dict(load_torch(backbone.store, backbone.weights))
        self._model = model.to(self._device, self._type).eval()
        self._grid = spec.clips.grid()

    @torch.inference_mode()
    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of CHUNK_SCHEMA in, of FEATURE_SCHEMA out."""
        ends = table["is_end"].to_pylist()
        positions = [row for row, is_end in enumerate(ends) if not is_end]
        made = self._features([self._upload(table, row) for row in positions])
        features = dict(zip(positions, made, strict=True))
        column = [features[row].tobytes() if row in features else b"" for row in range(len(ends))]
        return table.drop_columns(["frames"]).append_column(
            "features", pa.array(column, pa.large_binary())
        )

    @torch.inference_mode()
    def features(self, frames: Tensor, *, first_clip: int, num_clips: int) -> NDArray[np.generic]:
        """The features [num_clips, F], in the type that they are stored in, of a single chunk.

        Args:
            frames: [n, H, W, 3] uint8 on this actor's device; the first is that of `first_clip`.
            first_clip: number of the chunk's first clip in its video.
            num_clips: clips of the chunk.
        """
        (made,) = self._features([self._chunk(frames, first_clip, num_clips)])
        return made

    def _upload(self, table: pa.Table, row: int) -> _Chunk:
        """Copy a chunk's frames to the device, once; its clips are cut there."""
        place = table.select(["first_clip", "num_clips", "height", "width"])
        chunk = place.slice(row, 1).to_pylist()[0]
        data = np.frombuffer(table["frames"][row].as_buffer(), np.uint8)
        on_gpu = self._device.type == "cuda"
        # Page-locked memory is what a GPU fetches from while the processor goes on.
        frames = torch.empty(data.size, dtype=torch.uint8, pin_memory=on_gpu)
        np.copyto(frames.numpy(), data)
        on_device = frames.view(-1, chunk["height"], chunk["width"], 3).to(
            self._device, non_blocking=True
        )
        return self._chunk(on_device, chunk["first_clip"], chunk["num_clips"])

    def _chunk(self, frames: Tensor, first_clip: int, num_clips: int) -> _Chunk:
        starts = [
            self._grid.clip_offset(clip, first_clip=first_clip)
            for clip in range(first_clip, first_clip + num_clips)
        ]
        return _Chunk(frames, starts)

    def _features(self, chunks: list[_Chunk]) -> list[NDArray[np.generic]]:
        """The features [clips, F] of each chunk, in the type that they are stored in."""
        sizes = [len(chunk.starts) for chunk in chunks]
        rows: dict[tuple[int, int], Tensor] = {}
        for batch in self._batches(chunks, sizes):
            windows = [self._windows(chunk) for chunk in _by_chunk(chunks, batch)]
            values = self._forward(torch.cat(windows) if len(windows) > 1 else windows[0])
            rows.update(zip(batch.clips[: len(values) - batch.num_copies], values, strict=False))
        if not rows:
            return []
        # One transfer for all: until here a GPU was never waited for.
        ordered = torch.stack([rows[n, k] for n, size in enumerate(sizes) for k in range(size)])
        stored = ordered.cpu().numpy().astype(self._spec.extraction.feature_type)
        return list(np.split(stored, np.cumsum(sizes)[:-1]))

    def _batches(self, chunks: list[_Chunk], sizes: list[int]) -> list[ClipBatch]:
        batch_clips = self._spec.backbone.batch_clips
        if self._spec.extraction.batching == "best_fit":
            return list(best_fit_batches(sizes, batch_clips=batch_clips))
        shapes = [(chunk.frames.shape[1], chunk.frames.shape[2]) for chunk in chunks]
        return list(fixed_batches(sizes, shapes, batch_clips=batch_clips))

    def _windows(self, chunk: _Chunk) -> Tensor:
        """Cut normalised clips [B, L, H, W, 3] out of a chunk's frames.

        Frames are normalised before clips that overlap share them.
        """
        length = self._grid.frames_per_clip
        begin, end = min(chunk.starts), max(chunk.starts) + length
        mean, std = self._network.mean, self._network.std
        normalized = normalize_frames(chunk.frames[begin:end], mean=mean, std=std).to(self._type)
        ticks = torch.tensor(chunk.starts)[:, None] - begin + torch.arange(length)
        on_device = ticks.flatten().to(self._device, non_blocking=True)
        # Half the time of indexing with `ticks`, which copies value by value.
        frames = normalized.movedim(0, -1).index_select(0, on_device)
        return frames.view(*ticks.shape, *frames.shape[1:])

    def _forward(self, clips: Tensor) -> Tensor:
        """Features [B, F] float32 of normalised clips [B, L, H, W, 3]."""
        return self._model.forward_features(clips.movedim(-1, 1)).float()


def _by_chunk(chunks: list[_Chunk], batch: ClipBatch) -> list[_Chunk]:
    """The chunks that a batch takes clips from, with those clips only."""
    wanted: dict[int, list[int]] = {}
    for chunk, clip in batch.clips:
        wanted.setdefault(chunk, []).append(clip)
    return [
        _Chunk(chunks[chunk].frames, [chunks[chunk].starts[clip] for clip in clips])
        for chunk, clips in wanted.items()
    ]
