"""FEATURES as a PyTorch data set: one video an item, padded batches, in any order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from tfn_platform.feature_cache import FeatureCache
from tfn_platform.feature_index import FeatureReader
from tfn_platform.store import StageFolder


@dataclass(frozen=True)
class FeatureItem:
    """One video.

    Attributes:
        video_id: its name.
        features: [T, F] float32, or [D, F] where the data set resizes to D.
    """

    video_id: str
    features: torch.Tensor


@dataclass(frozen=True)
class FeatureBatch:
    """Several videos, zeros behind the shorter ones.

    Attributes:
        video_ids: B names.
        features: [B, max T, F] float32.
        mask: [B, max T], true where a clip is real.
    """

    video_ids: tuple[str, ...]
    features: torch.Tensor
    mask: torch.Tensor

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        if self.features.dim() != 3 or self.mask.shape != self.features.shape[:2]:
            raise ValueError(
                f"features must be [B, T, F] and mask [B, T], got {tuple(self.features.shape)} "
                f"and {tuple(self.mask.shape)}"
            )
        if len(self.video_ids) != len(self.features):
            raise ValueError(f"{len(self.features)} videos, but {len(self.video_ids)} names")

    def pin_memory(self) -> "FeatureBatch":
        """The same in pinned memory; a DataLoader asks for it."""
        return FeatureBatch(self.video_ids, self.features.pin_memory(), self.mask.pin_memory())


class FeatureDataset(Dataset[FeatureItem]):
    """Videos by number, each read by one ranged read or out of the local cache.

    Any worker of a DataLoader may use it, forked or spawned. Use `collate_features` with it:

        cache = FeatureCache(Path.home() / ".cache" / "tfn-features", max_bytes=10**11)
        dataset = FeatureDataset(folder, cache=cache)
        order = dataset.epoch(torch.randperm(len(dataset)).tolist())
        loader = DataLoader(dataset, sampler=order, batch_size=16, collate_fn=collate_features)
    """

    def __init__(
        self,
        folder: StageFolder,
        video_ids: Sequence[str] | None = None,
        *,
        length: int | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        """Read the index.

        Args:
            folder: the stage that made the features.
            video_ids: item i is the i-th of these; all videos, sorted, where not given.
            length: cells that each video is resized to; None for as many as it has clips.
            cache: where parts of a remote store are kept.

        Raises:
            ValueError: the length is below 1.
            KeyError: a video has no features.
            TableError: there are no finished features.
        """
        if length is not None and length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self._reader = FeatureReader(folder, cache=cache)
        self.video_ids = self._reader.video_ids if video_ids is None else tuple(video_ids)
        for name in self.video_ids:
            self._reader.num_clips(name)
        self._length = length

    def __len__(self) -> int:
        """How many videos there are."""
        return len(self.video_ids)

    def __getitem__(self, index: int) -> FeatureItem:
        """Read one video; its tensor is the caller's own."""
        name = self.video_ids[index]
        features = torch.from_numpy(self._reader.read(name).astype(np.float32, copy=False))
        if self._length is not None:
            features = resize_features(features, self._length)
        return FeatureItem(name, features)

    def epoch(self, order: Sequence[int]) -> list[int]:
        """Say in which order the items will be asked for, so that their parts are fetched ahead.

        Returns:
            The order, for a DataLoader's `sampler`.
        """
        self._reader.prefetch([self.video_ids[index] for index in order])
        return list(order)


def collate_features(items: Sequence[FeatureItem]) -> FeatureBatch:
    """Join items to a batch, zeros behind those with fewer clips."""
    features = torch.nn.utils.rnn.pad_sequence([item.features for item in items], batch_first=True)
    lengths = torch.tensor([len(item.features) for item in items])
    mask = torch.arange(features.shape[1]) < lengths[:, None]
    return FeatureBatch(tuple(item.video_id for item in items), features, mask)


def resize_features(features: torch.Tensor, length: int) -> torch.Tensor:
    """Resize [T, F] float32 to [length, F] by linear interpolation between the cells' centres.

    Both cover the same span of time: the centre (i + 1/2) / length of a new cell is met at
    (i + 1/2) · T / length - 1/2 on the old ones, held at the outermost. The numbers are those of
    the models' own resizing.
    """
    num_clips = len(features)
    cells = torch.arange(length, dtype=torch.float64)
    positions = ((cells + 0.5) * (num_clips / length) - 0.5).clamp(0, num_clips - 1)
    low = positions.floor()
    share = (positions - low).to(features.dtype)[:, None]
    below = features[low.long()]
    above = features[(low.long() + 1).clamp(max=num_clips - 1)]
    return below * (1 - share) + above * share
