"""Job: fuse class scores and refined proposals, and join them to DETECTIONS (paper, 2.1, 2.3).

Every weight that an evaluation video is fused with is fitted on the other folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tfn_jobs.class_score_tables import class_score_rows, logits_of
from tfn_jobs.detection_tables import DETECTIONS_FILE, activitynet_json, detect
from tfn_jobs.folds import assign_folds
from tfn_jobs.member_data import MemberData
from tfn_jobs.pipeline_spec import FusionSpec
from tfn_jobs.proposal_tables import (
    FUSED,
    MEAN,
    VideoProposals,
    proposal_rows,
    proposals_of,
    ranked_for,
)
from tfn_jobs.weights_file import write_weights
from tfn_models.fusion.class_scores import fit_class_weights, fuse_class_scores
from tfn_models.fusion.proposals import RefinedVideo, fit_refiner_weights, fuse_refined
from tfn_models.fusion.weights import uniform_weights
from tfn_models.nms import DETECTION_NMS, soft_nms
from tfn_models.segments import clip_segments
from tfn_platform.errors import StageError
from tfn_platform.parquet import content_hash, read_table, write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import CLASS_SCORES, DETECTIONS, PROPOSALS

Proposals = Mapping[str, VideoProposals]


@dataclass(frozen=True)
class FuseJob:
    """What the job reads and writes."""

    fusion: FusionSpec
    stage: Stage
    folder: StageFolder
    data: MemberData
    classifiers: Mapping[str, StageFolder]
    proposed: StageFolder
    refiners: Mapping[str, StageFolder]


def fuse(job: FuseJob) -> dict[str, int | str]:
    """Write fused CLASS_SCORES and PROPOSALS, and DETECTIONS (also as ActivityNet JSON).

    Returns:
        Figures for the commit, among them the hash of the detections.
    """
    data = job.data
    evaluated = data.of_subset(data.evaluation_subset)
    names = [data.videos[v].video_id for v in evaluated]
    folds = assign_folds(names, job.fusion.num_folds, seed=data.seed)
    fold_of = np.array([folds[name] for name in names])
    logits, class_weights = _fuse_classes(job, evaluated, fold_of)
    refined, refiner_weights = _fuse_refiners(job, evaluated, fold_of)
    stage, folder = job.stage, job.folder
    scores = class_score_rows(names, logits)
    write_table(folder, CLASS_SCORES, scores, contract=stage.contract(CLASS_SCORES))
    write_table(folder, PROPOSALS, proposal_rows(refined), contract=stage.contract(PROPOSALS))
    detections = detect(
        names, logits[FUSED], refined[FUSED], fusion=job.fusion, class_names=data.class_names
    )
    write_table(folder, DETECTIONS, detections, contract=stage.contract(DETECTIONS))
    folder.store.write_bytes(folder.file(DETECTIONS_FILE), activitynet_json(detections))
    write_weights(
        folder,
        {
            "class scores": (list(job.classifiers), class_weights),
            "refined proposals": (list(job.refiners), refiner_weights),
        },
    )
    return {"detections": detections.num_rows, "detections_hash": content_hash(detections)}


def _fuse_classes(
    job: FuseJob, evaluated: Sequence[int], fold_of: NDArray[np.int64]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Fused logits [V, K], learned and mean; and the weights [M], mean over folds."""
    names = [job.data.videos[v].video_id for v in evaluated]
    members = torch.stack([logits_of(f, names).double() for f in job.classifiers.values()])
    labels = torch.tensor([job.data.videos[v].main_label for v in evaluated])
    fused = torch.zeros_like(members[0])
    weights = []
    for fold in range(job.fusion.num_folds):
        inside = torch.from_numpy(fold_of == fold)
        fitted = fit_class_weights(
            members[:, ~inside], labels[~inside], parametrisation=job.fusion.class_weights
        )
        weights.append(fitted)
        fused[inside] = fuse_class_scores(members[:, inside], weights[-1])
    mean = fuse_class_scores(members, uniform_weights(len(members)))
    return {FUSED: fused, MEAN: mean}, torch.stack(weights).mean(0)


def _fuse_refiners(
    job: FuseJob, evaluated: Sequence[int], fold_of: NDArray[np.int64]
) -> tuple[dict[str, dict[str, VideoProposals]], torch.Tensor]:
    """Proposals after soft-NMS: learned, mean, each refiner's; and the weights' mean over folds."""
    proposed, _ = read_table(job.proposed, PROPOSALS)
    inputs = proposals_of(proposed, ranked_for(FUSED, "detection"))
    by_member = {
        name: proposals_of(read_table(folder, PROPOSALS)[0], name)
        for name, folder in job.refiners.items()
    }
    refined: dict[str, dict[str, VideoProposals]] = {}
    weights = []
    videos = {v: fold for v, fold in zip(evaluated, fold_of.tolist(), strict=True)}
    known = {v: _refined_video(job, v, by_member) for v in videos if _id(job, v) in inputs}
    if not known:
        raise StageError(f"{job.proposed.uri}: no video of the evaluation subset has proposals")
    uniform = uniform_weights(len(by_member))
    for fold in range(job.fusion.num_folds):
        others = [refined_video for v, refined_video in known.items() if videos[v] != fold]
        weights.append(fit_refiner_weights(others, parametrisation=job.fusion.refiner_weights))
    for v, video in known.items():
        single = torch.eye(len(by_member), dtype=torch.float64)
        choices = {FUSED: weights[videos[v]], MEAN: uniform}
        choices |= {name: single[m] for m, name in enumerate(by_member)}
        for name, chosen in choices.items():
            segments, iou = fuse_refined(video.segments, video.scores, chosen)
            if job.fusion.refiner_weights == "free":
                # Negative weights reach beyond what each refiner, inside the video, says.
                end = job.data.videos[v].duration_seconds
                segments = clip_segments(segments, low=0.0, high=end)
            scored = VideoProposals(segments, iou * inputs[_id(job, v)].scores)
            refined.setdefault(name, {})[_id(job, v)] = _suppress(job, v, scored)
    return refined, torch.stack(weights).mean(0)


def _id(job: FuseJob, video: int) -> str:
    return job.data.videos[video].video_id


def _refined_video(job: FuseJob, video: int, by_member: Mapping[str, Proposals]) -> RefinedVideo:
    own = [proposals[_id(job, video)] for proposals in by_member.values()]
    return RefinedVideo(
        torch.stack([p.segments for p in own]),
        torch.stack([p.scores for p in own]),
        job.data.videos[video].segments,
    )


def _suppress(job: FuseJob, video: int, proposals: VideoProposals) -> VideoProposals:
    """Refined proposals may have moved onto one another: soft-NMS once more."""
    seconds = job.data.videos[video].duration_seconds
    settings = replace(DETECTION_NMS, max_outputs=job.fusion.proposals_per_video)
    kept = soft_nms(proposals.segments, proposals.scores, settings=settings, video_length=seconds)
    return VideoProposals(proposals.segments[kept.indices], kept.scores)
