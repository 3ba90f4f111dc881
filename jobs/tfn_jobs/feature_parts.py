"""FEATURES as they come in: chunks to videos, videos to parts, written once they are whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import FEATURES, QUARANTINE, FeatureContract
from tfn_platform.video import SamplingGrid


@dataclass
class _VideoProgress:
    chunks: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    num_clips: int | None = None
    reason: str = ""
    detail: str = ""
    uri: str = ""

    def is_over(self) -> bool:
        if self.num_clips is None:
            return False
        return bool(self.reason) or sum(map(len, self.chunks.values())) == self.num_clips

    def features(self) -> NDArray[np.float32]:
        return np.concatenate([self.chunks[first] for first in sorted(self.chunks)])


class FeatureParts:
    """Gathers chunks into videos and videos into parts, and writes each part when it is whole."""

    def __init__(
        self,
        stage: Stage,
        folder: StageFolder,
        *,
        grid: SamplingGrid,
        contract: FeatureContract,
        part_sizes: Mapping[int, int],
    ) -> None:
        """Say where the parts go, how their features are made, and how many videos each has."""
        self._stage = stage
        self._folder = folder
        self._grid = grid
        self._contract = contract
        self._part_sizes = part_sizes
        self._parts: dict[int, dict[str, _VideoProgress]] = {}

    def add(self, row: Mapping[str, Any]) -> int:
        """Take one row; return how many videos it finished (0 or 1)."""
        part = self._parts.setdefault(row["part"], {})
        video = part.setdefault(row["video_id"], _VideoProgress(uri=row["uri"]))
        if video.is_over():
            return 0  # a chunk that comes after the news that the video is damaged
        if row["is_end"]:
            video.num_clips = row["num_clips"]
            video.reason, video.detail = row["reason"], row["detail"]
        else:
            values = np.frombuffer(row["features"], np.float32)
            video.chunks[row["first_clip"]] = values.reshape(row["num_clips"], -1)
        if not video.is_over():
            return 0
        if len(part) == self._part_sizes[row["part"]] and all(v.is_over() for v in part.values()):
            self._write(row["part"], self._parts.pop(row["part"]))
        return 1

    def _write(self, number: int, videos: dict[str, _VideoProgress]) -> None:
        bad = {name: v for name, v in sorted(videos.items()) if v.reason}
        good = {name: v.features() for name, v in sorted(videos.items()) if not v.reason}
        # FEATURES last: its part is what says that the part is made.
        write_table(
            self._folder,
            QUARANTINE,
            self._quarantine_rows(bad),
            contract=self._stage.contract(QUARANTINE),
            part=number,
        )
        write_table(
            self._folder,
            FEATURES,
            self._feature_rows(good),
            contract=self._stage.contract(FEATURES, features=self._contract),
            part=number,
            rows_per_group=[len(values) for values in good.values()],
        )

    def _quarantine_rows(self, videos: dict[str, _VideoProgress]) -> pa.Table:
        return pa.table(
            {
                "video_id": list(videos),
                "uri": [video.uri for video in videos.values()],
                "reason": [video.reason for video in videos.values()],
                "detail": [video.detail for video in videos.values()],
                "stage": [self._stage.name] * len(videos),
                "attempts": [1] * len(videos),
            },
            schema=QUARANTINE.schema,
        )

    def _feature_rows(self, videos: dict[str, NDArray[np.float32]]) -> pa.Table:
        length = self._contract.feature_dim
        counts = [len(values) for values in videos.values()]
        indices = [clip for count in counts for clip in range(count)]
        flat = np.concatenate([np.empty(0, np.float32), *(v.ravel() for v in videos.values())])
        return pa.table(
            {
                "video_id": np.repeat(np.array(list(videos), dtype=object), counts).tolist(),
                "clip_index": indices,
                "center_seconds": [self._grid.center_seconds(clip) for clip in indices],
                "feature": pa.FixedSizeListArray.from_arrays(pa.array(flat), length),
            },
            schema=FEATURES.sized(length),
        )
