"""A small data set with all that members would predict on it, made without training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tfn_jobs.bmn_member import VIDEOS_PER_PART
from tfn_jobs.class_score_tables import class_score_rows
from tfn_jobs.evaluate import EvaluateJob
from tfn_jobs.fuse import FuseJob, fuse
from tfn_jobs.member_data import MemberData, read_member_data
from tfn_jobs.pipeline_spec import FusionSpec
from tfn_jobs.proposal_tables import FUSED, VideoProposals, proposal_rows, proposals_of, ranked_for
from tfn_jobs.propose import ProposeJob, propose
from tfn_models.boundary_maps import pack_valid_cells, valid_cells
from tfn_platform.feature_index import write_index
from tfn_platform.feature_table import VideoFeatures, write_feature_part
from tfn_platform.parquet import read_table, write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import (
    ANNOTATIONS,
    BOUNDARY_MAPS,
    CLASS_SCORES,
    FEATURES,
    PROPOSALS,
    QUARANTINE,
    VIDEOS,
    FeatureContract,
    Table,
)

CLASS_NAMES = ("jump", "run", "swim")
FEATURE_DIM = 3
STRIDE_SECONDS = 0.5
FUSION = FusionSpec(num_folds=3, num_bins=8, candidates="all", proposals_per_video=20)
PREPARE = Stage("prepare", {})
EXTRACT = Stage("extract", {}, (PREPARE,))
PROPOSE, FUSE, EVALUATE = Stage("propose", {}), Stage("fuse", {}), Stage("evaluate", {})
CONTRACT = FeatureContract(
    backbone="none",
    weights_hash="0",
    feature_dim=FEATURE_DIM,
    frames_per_clip=8,
    frame_rate="15",
    stride_seconds="1/2",
    alignment="center",
    short_side=32,
    normalization="none",
    decoder="none",
)

Segment = tuple[str, float, float]


@dataclass(frozen=True)
class SmallVideo:
    """What is known of a video; without `num_clips` it has no file and no features."""

    video_id: str
    subset: str
    num_clips: int
    segments: tuple[Segment, ...]

    @property
    def duration_seconds(self) -> float:
        """A bit shorter than its clips, as half of all real videos are."""
        return self.num_clips * STRIDE_SECONDS - 0.2


def some_videos(num_training: int = 4, num_evaluated: int = 9) -> list[SmallVideo]:
    """Videos of different lengths, with one or two segments of one class; the last has no file."""
    rng = np.random.default_rng(7)
    videos = []
    for number in range(num_training + num_evaluated):
        subset = "training" if number < num_training else "validation"
        label, num_clips = CLASS_NAMES[number % 3], 8 + number
        cuts = np.sort(rng.uniform(0, (num_clips - 1) * STRIDE_SECONDS, 4)).round(2).tolist()
        segments = [(label, cuts[0], cuts[1] + 0.5), (label, cuts[2] + 0.1, cuts[3] + 0.4)]
        is_lost = number == num_training + num_evaluated - 1
        videos.append(
            SmallVideo(
                f"video{number:02d}",
                subset,
                0 if is_lost else num_clips,
                tuple(segments[: 1 + number % 2]),
            )
        )
    return videos


@dataclass
class SmallPipeline:
    """Stages of a pipeline in a store, each with what a test needs of it."""

    store: Store
    videos: list[SmallVideo]
    classifiers: dict[str, StageFolder] = field(default_factory=dict)
    bmns: dict[str, StageFolder] = field(default_factory=dict)
    refiners: dict[str, StageFolder] = field(default_factory=dict)

    @classmethod
    def make(cls, store: Store, videos: list[SmallVideo] | None = None) -> "SmallPipeline":
        """Write VIDEOS, ANNOTATIONS, QUARANTINE and FEATURES (random ones)."""
        small = cls(store, some_videos() if videos is None else videos)
        small._prepare()
        small._extract()
        return small

    @classmethod
    def predicted(
        cls, store: Store, videos: list[SmallVideo] | None = None, *, fusion: FusionSpec = FUSION
    ) -> "SmallPipeline":
        """All that `evaluate` reads; what the members predict depends on their names alone."""
        small = cls.make(store, videos)
        for name, num_bins in (("one", 8), ("two", 12)):
            small.put_maps(name, num_bins=num_bins)
        small.commit(PROPOSE, propose(small.propose_job(fusion)))
        for name in ("one", "two"):
            small.put_scores(name)
            small.put_refined(name)
        small.commit(FUSE, fuse(small.fuse_job(fusion)))
        return small

    def folder(self, stage: Stage) -> StageFolder:
        return stage.folder(self.store)

    def commit(self, stage: Stage, figures: Mapping[str, Any] | None = None) -> StageFolder:
        stage.commit(self.store, seconds=1.0, **(figures or {}))
        return self.folder(stage)

    def put(self, stage: Stage, table: Table, columns: dict[str, Any], *, part: int = 0) -> None:
        rows = pa.table(columns, schema=table.schema)
        contract = stage.contract(table)
        write_table(self.folder(stage), table, rows, contract=contract, part=part)

    @property
    def data(self) -> MemberData:
        return read_member_data(
            self.folder(PREPARE),
            self.folder(EXTRACT),
            training_subset="training",
            evaluation_subset="validation",
            seed=0,
        )

    @property
    def evaluated(self) -> list[str]:
        """Names of the videos that are scored."""
        return [v.video_id for v in self.data.videos if v.subset == "validation"]

    def propose_job(self, fusion: FusionSpec = FUSION) -> ProposeJob:
        members = {name: f for name, f in self.bmns.items() if name != "untrained"}
        baselines = {name: f for name, f in self.bmns.items() if name == "untrained"}
        return ProposeJob(fusion, PROPOSE, self.folder(PROPOSE), self.data, members, baselines)

    def fuse_job(self, fusion: FusionSpec = FUSION) -> FuseJob:
        folder, proposed = self.folder(FUSE), self.folder(PROPOSE)
        return FuseJob(fusion, FUSE, folder, self.data, self.classifiers, proposed, self.refiners)

    def evaluate_job(self, fusion: FusionSpec = FUSION) -> EvaluateJob:
        return EvaluateJob(
            fusion=fusion,
            folder=self.folder(EVALUATE),
            data=self.data,
            prepared=self.folder(PREPARE),
            classifiers=self.classifiers,
            bmns=self.bmns,
            refiners=self.refiners,
            untrained_classifiers={},
            untrained_bmns={},
            proposed=self.folder(PROPOSE),
            fused=self.folder(FUSE),
        )

    def put_maps(self, name: str, *, num_bins: int) -> None:
        """BOUNDARY_MAPS of all videos, at random, as a BMN of this name would write them."""
        rng = _generator(name)
        names = [video.video_id for video in self.data.videos]
        maps = torch.from_numpy(rng.random((4, len(names), num_bins, num_bins), dtype=np.float32))
        cells = pack_valid_cells(maps * valid_cells(num_bins))
        stage = Stage(f"bmn/{name}", {})
        for part, begin in enumerate(range(0, len(names), VIDEOS_PER_PART)):
            chosen = slice(begin, begin + VIDEOS_PER_PART)
            columns = {
                "video_id": names[chosen],
                "member": [name] * len(names[chosen]),
                "num_bins": [num_bins] * len(names[chosen]),
                "start": list(maps[0, chosen, 0].numpy()),
                "end": list(maps[1, chosen, 0].numpy()),
                "classification": list(cells[2, chosen].numpy()),
                "regression": list(cells[3, chosen].numpy()),
            }
            self.put(stage, BOUNDARY_MAPS, columns, part=part)
        self.bmns[name] = self.commit(stage)

    def put_scores(self, name: str) -> None:
        """CLASS_SCORES of the evaluated videos, at random."""
        names = self.evaluated
        logits = torch.from_numpy(_generator(name).normal(size=(len(names), len(CLASS_NAMES))))
        stage = Stage(f"classifier/{name}", {})
        rows = class_score_rows(names, {name: 2 * logits})
        contract = stage.contract(CLASS_SCORES)
        write_table(self.folder(stage), CLASS_SCORES, rows, contract=contract)
        self.classifiers[name] = self.commit(stage)

    def put_refined(self, name: str) -> None:
        """PROPOSALS: the fused ones, each moved a little, with a random IoU."""
        rng = _generator(name)
        table, _ = read_table(self.folder(PROPOSE), PROPOSALS)
        inputs = proposals_of(table, ranked_for(FUSED, "detection"))
        refined = {}
        for video_id in self.evaluated:
            segments = inputs[video_id].segments
            moved = (segments + torch.from_numpy(rng.normal(size=segments.shape)) / 20).clamp(0)
            scores = torch.from_numpy(rng.random(len(segments)))
            refined[video_id] = VideoProposals(moved.sort(dim=1).values, scores)
        stage = Stage(f"refiner/{name}", {})
        rows = proposal_rows({name: refined})
        write_table(self.folder(stage), PROPOSALS, rows, contract=stage.contract(PROPOSALS))
        self.refiners[name] = self.commit(stage)

    def _prepare(self) -> None:
        found = [video for video in self.videos if video.num_clips]
        lost = [video for video in self.videos if not video.num_clips]
        videos = {
            "video_id": [video.video_id for video in found],
            "uri": [f"/videos/{video.video_id}.mp4" for video in found],
            "subset": [video.subset for video in found],
            "duration_seconds": [video.duration_seconds for video in found],
            "frame_rate": [25.0] * len(found),
            "width": [64] * len(found),
            "height": [48] * len(found),
            "size_bytes": [1] * len(found),
            "fingerprint": [""] * len(found),
        }
        self.put(PREPARE, VIDEOS, videos)
        quarantine = {
            "video_id": [video.video_id for video in lost],
            "uri": [f"/videos/{video.video_id}" for video in lost],
            "reason": ["missing_file"] * len(lost),
            "detail": ["no such file"] * len(lost),
            "stage": ["prepare"] * len(lost),
            "attempts": [1] * len(lost),
        }
        self.put(PREPARE, QUARANTINE, quarantine)
        segments = [(video, *segment) for video in self.videos for segment in video.segments]
        annotations = {
            "video_id": [video.video_id for video, *_ in segments],
            "subset": [video.subset for video, *_ in segments],
            "label": [label for _, label, _, _ in segments],
            "start_seconds": [start for _, _, start, _ in segments],
            "end_seconds": [end for _, _, _, end in segments],
        }
        self.put(PREPARE, ANNOTATIONS, annotations)
        self.commit(PREPARE)

    def _extract(self) -> None:
        found = [video for video in self.videos if video.num_clips]
        ends = np.cumsum([video.num_clips for video in found])
        size = (sum(video.num_clips for video in found), FEATURE_DIM)
        values = _generator("features").normal(size=size).astype(np.float32)
        folder = self.folder(EXTRACT)
        write_feature_part(
            folder,
            [
                VideoFeatures(video.video_id, rows, CONTRACT.center_seconds(video.num_clips))
                for video, rows in zip(found, np.split(values, ends[:-1]), strict=True)
            ],
            contract=EXTRACT.contract(FEATURES, features=CONTRACT),
            part=0,
        )
        write_index(folder)
        self.commit(EXTRACT)


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))
