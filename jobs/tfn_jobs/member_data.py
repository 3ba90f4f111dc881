"""What all members train on: features and segments of the same videos, and how to batch them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from zlib import crc32

import numpy as np
import ray
import torch

from tfn_jobs.labelled_videos import LabelledVideo, read_labelled_videos
from tfn_platform.feature_index import FeatureReader, FeatureSet
from tfn_platform.store import StageFolder


@dataclass(frozen=True)
class MemberData:
    """The videos with features and annotated segments; index v means the same in all fields.

    Attributes:
        class_names: names of the K classes.
        videos: V videos.
        features: of the same V videos.
        training_subset: trained on.
        evaluation_subset: where the best epoch is chosen, ensemble weights are fitted, and
            all is scored.
        seed: of the pipeline.
    """

    class_names: tuple[str, ...]
    videos: tuple[LabelledVideo, ...]
    features: FeatureSet
    training_subset: str
    evaluation_subset: str
    seed: int

    @property
    def clip_seconds(self) -> float:
        """Seconds from a clip to the next."""
        return float(Fraction(self.features.contract.stride_seconds))

    def of_subset(self, subset: str) -> list[int]:
        """Indices of the videos of one subset."""
        return [v for v, video in enumerate(self.videos) if video.subset == subset]

    def feature_tensor(self, video: int) -> torch.Tensor:
        """[T, F] of one video in float32, whatever it is stored in.

        Its own memory, for the shared array must not be written to.
        """
        return torch.from_numpy(self.features.of(video).astype(np.float32))

    def extent_seconds(self, video: int) -> float:
        """The span of time that a video's clips cover: T strides."""
        return len(self.features.of(video)) * self.clip_seconds

    def segments_inside(
        self, video: int, *, min_seconds: float, unit_seconds: float
    ) -> torch.Tensor:
        """[G, 2] annotated segments, cut to the video's extent, in units of `unit_seconds`."""
        segments = self.videos[video].segments_of_at_least(min_seconds)
        segments = segments.clamp(0, self.extent_seconds(video)) / unit_seconds
        return segments[segments[:, 1] > segments[:, 0]]


def read_member_data(
    prepared: StageFolder,
    extracted: StageFolder,
    *,
    training_subset: str,
    evaluation_subset: str,
    seed: int,
) -> MemberData:
    """Join VIDEOS, ANNOTATIONS and FEATURES."""
    labelled = read_labelled_videos(prepared, training_subset=training_subset)
    reader = FeatureReader(extracted)
    known = set(reader.video_ids)
    videos = tuple(video for video in labelled.videos if video.video_id in known)
    features = reader.read_all([video.video_id for video in videos])
    return MemberData(
        labelled.class_names, videos, features, training_subset, evaluation_subset, seed
    )


def segments_in_extent(data: MemberData, video: int, *, min_seconds: float) -> torch.Tensor:
    """[G, 2] annotated segments of a video as shares, 0..1, of the extent that its bins cover."""
    extent = data.extent_seconds(video)
    return data.segments_inside(video, min_seconds=min_seconds, unit_seconds=extent)


def member_seed(data: MemberData, name: str) -> int:
    """A seed of its own for each member, fixed by the pipeline's seed and the member's name."""
    return data.seed * 2**32 + crc32(name.encode())


def shuffled_batches(
    indices: Sequence[int], batch_size: int, *, seed: int, epoch: int
) -> Iterator[list[int]]:
    """The indices in the random order of an epoch, in batches."""
    order = np.random.default_rng([seed, epoch]).permutation(len(indices))
    yield from batches([indices[position] for position in order], batch_size)


def batches(indices: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """The indices in their order, in batches."""
    for begin in range(0, len(indices), batch_size):
        yield list(indices[begin : begin + batch_size])


def num_batches(indices: Sequence[int], batch_size: int) -> int:
    """How many batches that makes."""
    return -(-len(indices) // batch_size)


def pad_sequences(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join [T_b, C] to [B, max T, C], zeros behind, with the mask [B, max T] of what is real."""
    padded = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def assigned_device() -> torch.device:
    """The GPU that Ray has given to this worker, or the CPU."""
    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")
