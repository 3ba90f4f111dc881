"""Job: fuse the boundary maps of all BMNs and decode them to PROPOSALS (paper, section 2.2).

The weights for an evaluation video are fitted on the other folds; training videos, which only feed
the refiners, get the mean of all folds' weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tfn_jobs.boundary_map_tables import MAP_NAMES, VIDEOS_PER_PART, maps_of_part
from tfn_jobs.console import with_progress
from tfn_jobs.folds import assign_folds
from tfn_jobs.member_data import MemberData, batches, segments_in_extent
from tfn_jobs.pipeline_spec import FusionSpec
from tfn_jobs.proposal_tables import FUSED, MEAN, VideoProposals, proposal_rows, ranked_for
from tfn_jobs.weights_file import write_weights
from tfn_models.bmn.decode import Scoring, decode_batch
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BoundaryMaps
from tfn_models.fusion.boundary_maps import (
    MapWeights,
    fit_map_weights,
    fuse_boundary_maps,
    resize_boundary_maps,
    uniform_map_weights,
)
from tfn_models.nms import DETECTION_NMS, RECALL_NMS, SoftNms, soft_nms
from tfn_platform.map_table import map_rows
from tfn_platform.parquet import write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import PROPOSALS

# Proposals are ranked for recall (AR, AUC) and for detection (mAP, refiners) by different scores.
NMS: dict[Scoring, SoftNms] = {"detection": DETECTION_NMS, "recall": RECALL_NMS}


@dataclass(frozen=True)
class ProposeJob:
    """What the job reads and writes; `members` are the trained BMNs, `baselines` untrained ones."""

    fusion: FusionSpec
    stage: Stage
    folder: StageFolder
    data: MemberData
    members: Mapping[str, StageFolder]
    baselines: Mapping[str, StageFolder]


def propose(job: ProposeJob) -> dict[str, int]:
    """Write PROPOSALS: the fused of all videos; members', baselines' and mean's of those scored.

    Returns:
        Figures for the commit.
    """
    data = job.data
    evaluated = data.of_subset(data.evaluation_subset)
    names = [data.videos[v].video_id for v in evaluated]
    folds = assign_folds(names, job.fusion.num_folds, seed=data.seed)
    fold_weights = _fit_folds(job, evaluated, folds)
    mean_weights = _mean_weights(fold_weights)
    spans = _spans(data, folds)
    decode = _DecodePart(job.fusion, job.members, job.baselines, spans, fold_weights, mean_weights)
    results = map_rows([{"item": part} for part in range(len(spans))], decode)
    for result in with_progress(results, total=len(spans), what="propose", unit="part"):
        table = pa.ipc.open_stream(result["table"]).read_all()
        contract = job.stage.contract(PROPOSALS)
        write_table(job.folder, PROPOSALS, table, contract=contract, part=result["part"])
    learned = {
        f"boundary maps: {name}": (list(job.members), getattr(mean_weights, name))
        for name in MAP_NAMES
    }
    write_weights(job.folder, learned)
    return {"videos": len(data.videos)}


def _fit_folds(
    job: ProposeJob, evaluated: Sequence[int], folds: Mapping[str, int]
) -> list[MapWeights]:
    """The weights for each fold, fitted on videos of all the others."""
    data, num_bins = job.data, job.fusion.num_bins
    chosen = _subsample(evaluated, job.fusion.max_fitting_videos, seed=data.seed)
    maps = {name: _read_maps(folder, chosen, data) for name, folder in job.members.items()}
    weights = []
    for fold in range(job.fusion.num_folds):
        fitted_on = [v for v in chosen if folds[data.videos[v].video_id] != fold]
        members = [_stack([of_video[v] for v in fitted_on], num_bins) for of_video in maps.values()]
        segments = [segments_in_extent(data, v, min_seconds=0.0) for v in fitted_on]
        targets = bmn_targets(segments, num_bins=num_bins)
        fitted = fit_map_weights(
            members, targets, parametrisation=job.fusion.map_weights, seed=data.seed
        )
        weights.append(fitted)
    return weights


def _subsample(videos: Sequence[int], limit: int, *, seed: int) -> list[int]:
    chosen = np.random.default_rng(seed).permutation(len(videos))[:limit]
    return [videos[position] for position in sorted(chosen)]


def _read_maps(
    folder: StageFolder, videos: Sequence[int], data: MemberData
) -> dict[int, BoundaryMaps]:
    """The maps of some videos, by their index."""
    maps = {}
    for part in sorted({v // VIDEOS_PER_PART for v in videos}):
        of_part = dict(maps_of_part(folder, part))
        for v in videos:
            if v // VIDEOS_PER_PART == part:
                maps[v] = of_part[data.videos[v].video_id]
    return maps


def _stack(maps: Sequence[BoundaryMaps], num_bins: int) -> BoundaryMaps:
    resized = [resize_boundary_maps(one, num_bins) for one in maps]
    return BoundaryMaps(*(torch.cat([getattr(m, n) for m in resized]) for n in MAP_NAMES))


def _mean_weights(weights: Sequence[MapWeights]) -> MapWeights:
    return MapWeights(
        *(torch.stack([getattr(w, name) for w in weights]).mean(0) for name in MAP_NAMES)
    )


@dataclass(frozen=True)
class _VideoSpan:
    """A video, the span of its bins and its length in seconds, and its fold (None: training)."""

    video_id: str
    extent_seconds: float
    video_seconds: float
    fold: int | None


@dataclass(frozen=True)
class _DecodePart:
    """Fuses and decodes the videos of one part of the members' maps; runs in a task."""

    fusion: FusionSpec
    members: Mapping[str, StageFolder]
    baselines: Mapping[str, StageFolder]
    spans: Sequence[Sequence[_VideoSpan]]
    fold_weights: Sequence[MapWeights]
    mean_weights: MapWeights

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A part's number in, its rows of PROPOSALS as an Arrow stream out."""
        torch.set_num_threads(1)
        part = int(row["item"])
        members = {name: dict(maps_of_part(f, part)) for name, f in self.members.items()}
        baselines = {name: dict(maps_of_part(f, part)) for name, f in self.baselines.items()}
        by_name: dict[str, dict[_VideoSpan, BoundaryMaps]] = {}
        for span in self.spans[part]:
            own = {name: of_video[span.video_id] for name, of_video in members.items()}
            untrained = {name: of_video[span.video_id] for name, of_video in baselines.items()}
            for name, maps in self._to_decode(span, own, untrained).items():
                by_name.setdefault(name, {})[span] = maps
        proposals = {
            ranked_for(name, scoring): self._decode(of_videos, scoring)
            for name, of_videos in by_name.items()
            for scoring in NMS
        }
        sink = pa.BufferOutputStream()
        table = proposal_rows(proposals)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return {"part": part, "table": sink.getvalue().to_pybytes()}

    def _to_decode(
        self,
        span: _VideoSpan,
        members: Mapping[str, BoundaryMaps],
        baselines: Mapping[str, BoundaryMaps],
    ) -> dict[str, BoundaryMaps]:
        """The fused maps of every video; of those scored also what they are compared with."""
        every, num_bins = list(members.values()), self.fusion.num_bins
        if span.fold is None:
            return {FUSED: fuse_boundary_maps(every, self.mean_weights, num_bins=num_bins)}
        weights = self.fold_weights[span.fold]
        uniform = uniform_map_weights(len(every))
        return {
            FUSED: fuse_boundary_maps(every, weights, num_bins=num_bins),
            MEAN: fuse_boundary_maps(every, uniform, num_bins=num_bins),
            **members,
            **baselines,
        }

    def _decode(
        self, of_videos: Mapping[_VideoSpan, BoundaryMaps], scoring: Scoring
    ) -> dict[str, VideoProposals]:
        """The proposals of some videos, by their id, from maps of one number of bins."""
        decoded = decode_batch(
            BoundaryMaps(
                *(torch.cat([getattr(m, n) for m in of_videos.values()]) for n in MAP_NAMES)
            ),
            scoring=scoring,
            candidates=self.fusion.candidates,
            extent_seconds=[span.extent_seconds for span in of_videos],
            video_seconds=[span.video_seconds for span in of_videos],
        )
        settings = replace(NMS[scoring], max_outputs=self.fusion.proposals_per_video)
        proposals = {}
        for span, found in zip(of_videos, decoded, strict=True):
            kept = soft_nms(
                found.segments, found.scores, settings=settings, video_length=span.video_seconds
            )
            proposals[span.video_id] = VideoProposals(found.segments[kept.indices], kept.scores)
        return proposals


def _spans(data: MemberData, folds: Mapping[str, int]) -> list[list[_VideoSpan]]:
    """What decoding has to know of the videos of each part."""
    return [
        [
            _VideoSpan(
                data.videos[v].video_id,
                data.extent_seconds(v),
                min(data.videos[v].duration_seconds, data.extent_seconds(v)),
                folds.get(data.videos[v].video_id),
            )
            for v in indices
        ]
        for indices in batches(range(len(data.videos)), VIDEOS_PER_PART)
    ]
