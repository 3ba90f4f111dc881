"""Decoding and backbone in one actor: frames that a GPU's video engine decodes never leave the GPU.

What the engine cannot decode goes to PyAV, in the process that a DecodeActor supervises.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tfn_jobs.backbone_actor import FEATURE_SCHEMA, BackboneActor
from tfn_jobs.decode_actor import MAX_CHUNK_BYTES, DecodeActor, decode_settings
from tfn_jobs.nvdec_report import NO_ENGINE
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.nvdec import NotForNvdecError, decode_on_device, why_not_nvdec
from tfn_platform.store import StageFolder
from tfn_platform.video import ChunkLimit, DecodedVideo, VideoError

Row = dict[str, Any]

NO_VALUES: Row = {
    **dict.fromkeys(("first_clip", "num_clips", "first_tick", "height", "width", "attempts"), 0),
    **{"reason": "", "detail": "", "is_end": False, "features": b""},
}


class NvdecActor:
    """Videos in, the features of their clips and what became of them out."""

    def __init__(self, spec: PipelineSpec, backbone: StageFolder, device: str) -> None:
        """Load the weights onto a device, ``cpu`` or ``cuda``, and see whether it can decode."""
        self._backbone = BackboneActor(spec, backbone, device)
        self._pyav = DecodeActor(decode_settings(spec))
        self._device = torch.device(device)
        self._why_never = why_never(self._device)
        self._grid = spec.clips.grid()
        self._is_square = spec.clips.crop == "center"
        self._batch_clips = spec.backbone.batch_clips
        self._salvages = spec.extraction.damage == "salvage"

    def __call__(self, videos: pa.Table) -> Iterator[pa.Table]:
        """Rows of TODO_SCHEMA in; tables of FEATURE_SCHEMA: a row a chunk and a video's end.

        The end of a sound video that PyAV had to decode has as its detail why.
        """
        for number, video in enumerate(videos.to_pylist()):
            why_not = self._why_never
            if why_not is None:
                made = self._by_nvdec(video)
                if isinstance(made, pa.Table):
                    yield made
                    continue
                why_not = made
            yield from self._by_pyav(videos.slice(number, 1), why_not)

    def _by_nvdec(self, video: Row) -> pa.Table | str:
        """All rows of a video, or why they are to be had from PyAV: never some of either."""
        uri = str(video["uri"])
        rows: list[Row] = []
        try:
            for item in decode_on_device(
                uri,
                self._grid,
                clips_per_chunk=ChunkLimit(self._batch_clips, MAX_CHUNK_BYTES),
                device=self._device,
                square=self._is_square,
            ):
                if isinstance(item, DecodedVideo):
                    rows.append({"is_end": True, "num_clips": item.num_clips, "attempts": 1})
                    continue
                place = {"first_clip": item.first_clip, "num_clips": item.num_clips}
                values: NDArray[np.generic] = self._backbone.features(item.frames, **place)
                _, height, width, _ = item.frames.shape
                size = {"first_tick": item.first_tick, "height": height, "width": width}
                rows.append({**place, **size, "features": values.tobytes()})
        except VideoError as error:
            if self._salvages and error.reason.is_recoverable:
                return f"its file is damaged: {error.reason}"
            fault = {"reason": str(error.reason), "detail": error.detail}
            rows = [{"is_end": True, **fault, "attempts": error.attempts}]
        except NotForNvdecError as error:
            return str(error).removeprefix(f"{uri}: ")
        except OSError as error:
            # PyAV's process tries again, and its actor knows what to say if that is in vain.
            return f"reading its bytes failed: {type(error).__name__}"
        rows = [{**NO_VALUES, **video, **row} for row in rows]
        return pa.Table.from_pylist(rows, schema=FEATURE_SCHEMA)

    def _by_pyav(self, video: pa.Table, why: str) -> Iterator[pa.Table]:
        for chunk in self._pyav(video):
            row = self._backbone(chunk)
            if row["is_end"][0].as_py() and not row["reason"][0].as_py():
                place = row.schema.get_field_index("detail")
                row = row.set_column(place, "detail", pa.array([why], pa.string()))
            yield row


def why_never(device: torch.device) -> str | None:
    """Why no video at all can be decoded on an actor's device; None where some can."""
    why_not = why_not_nvdec()
    if why_not is None and device.type == "cpu":
        why_not = "the extracting actors have no GPU (resources.model_gpus)"
    return None if why_not is None else NO_ENGINE + why_not
