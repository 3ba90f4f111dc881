"""Fusion of class scores and proposals: out of fold, and the mean where the weights are equal."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tests.tfn_jobs.small_pipeline import FUSE, FUSION, PROPOSE, SmallPipeline, some_videos
from tfn_jobs import fuse as fuse_job
from tfn_jobs import propose as propose_job
from tfn_jobs.class_score_tables import logits_of
from tfn_jobs.detection_tables import DETECTIONS_FILE
from tfn_jobs.folds import assign_folds
from tfn_jobs.fuse import fuse
from tfn_jobs.proposal_tables import FUSED, MEAN, proposals_of, ranked_for
from tfn_jobs.weights_file import read_weights
from tfn_models.fusion.boundary_maps import uniform_map_weights
from tfn_models.fusion.proposals import RefinedVideo
from tfn_models.nms import DETECTION_NMS, soft_nms
from tfn_platform.parquet import content_hash, read_table
from tfn_platform.store import Store
from tfn_platform.tables import DETECTIONS, PROPOSALS


def member_logits(small: SmallPipeline) -> torch.Tensor:
    folders = small.classifiers.values()
    return torch.stack([logits_of(folder, small.evaluated) for folder in folders])


def test_weights_of_a_fold_come_from_the_other_folds(
    predicted: SmallPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = member_logits(predicted)
    given: list[torch.Tensor] = []
    seen: list[set[int]] = []

    def record(logits: torch.Tensor, labels: torch.Tensor, *, parametrisation: str) -> torch.Tensor:
        assert parametrisation == FUSION.class_weights
        rows = [(every[0] == row).all(dim=1).nonzero().item() for row in logits[0].float()]
        assert len(labels) == len(rows)
        seen.append({int(row) for row in rows})
        given.append(torch.tensor([1.0 + len(given), 2.0]).double())
        return given[-1]

    monkeypatch.setattr(fuse_job, "fit_class_weights", record)
    fuse(predicted.fuse_job())
    folds = assign_folds(predicted.evaluated, FUSION.num_folds, seed=0)
    fused = logits_of(predicted.folder(FUSE), predicted.evaluated, member=FUSED)
    for row, video_id in enumerate(predicted.evaluated):
        fold = folds[video_id]
        assert row not in seen[fold]
        expected = (given[fold][:, None] * every[:, row]).sum(0)
        torch.testing.assert_close(fused[row], expected.float())
    assert set.union(*seen) == set(range(len(predicted.evaluated)))
    mean = logits_of(predicted.folder(FUSE), predicted.evaluated, member=MEAN)
    torch.testing.assert_close(mean, every.mean(0))
    weights = {entry.title: entry for entry in read_weights(predicted.folder(FUSE))}
    assert weights["class scores"].weights == pytest.approx([2.0, 2.0])


def test_refined_proposals_are_fused_out_of_fold(
    predicted: SmallPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []
    seen: list[list[torch.Tensor]] = []

    def record(videos: Sequence[RefinedVideo], *, parametrisation: str) -> torch.Tensor:
        assert parametrisation == FUSION.refiner_weights
        seen.append([video.actions for video in videos])
        given.append(torch.tensor([0.2 * len(given), 1 - 0.2 * len(given)]).double())
        return given[-1]

    monkeypatch.setattr(fuse_job, "fit_refiner_weights", record)
    fuse(predicted.fuse_job())
    fused = proposals_of(read_table(predicted.folder(FUSE), PROPOSALS)[0], FUSED)
    inputs = proposals_of(
        read_table(predicted.folder(PROPOSE), PROPOSALS)[0], ranked_for(FUSED, "detection")
    )
    refined = [
        proposals_of(read_table(folder, PROPOSALS)[0], name)
        for name, folder in predicted.refiners.items()
    ]
    folds = assign_folds(predicted.evaluated, FUSION.num_folds, seed=0)
    for video in predicted.data.videos:
        if video.video_id not in folds:
            continue
        fold = folds[video.video_id]
        assert not any(torch.equal(video.segments, actions) for actions in seen[fold])
        first, second = (found[video.video_id] for found in refined)
        share = given[fold]
        segments = share[0] * first.segments + share[1] * second.segments
        scores = (share[0] * first.scores + share[1] * second.scores) * inputs[
            video.video_id
        ].scores
        kept = soft_nms(
            segments,
            scores,
            settings=replace(DETECTION_NMS, max_outputs=FUSION.proposals_per_video),
            video_length=video.duration_seconds,
        )
        torch.testing.assert_close(fused[video.video_id].segments, segments[kept.indices])
        torch.testing.assert_close(fused[video.video_id].scores, kept.scores)


def test_a_videos_own_annotation_does_not_reach_its_detections(
    store: Store, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The proposals of the others would change with it, and are no concern of this job.
    monkeypatch.setattr(
        propose_job, "fit_map_weights", lambda members, *_, **__: uniform_map_weights(len(members))
    )

    def detections(root: str, *, changed: str) -> dict[str, list[object]]:
        videos = [
            # Another class and another time, but the classes and durations stay.
            replace(video, segments=(("run", 0.1, 0.9),)) if video.video_id == changed else video
            for video in some_videos()
        ]
        small = SmallPipeline.predicted(Store.open(f"{store.root}/{root}"), videos)
        content = small.store.read_bytes(small.folder(FUSE).file(DETECTIONS_FILE))
        results: dict[str, list[object]] = json.loads(content)["results"]
        return results

    before, after = detections("before", changed="none"), detections("after", changed="video06")
    assert before["video06"] == after["video06"]
    assert any(before[video_id] != after[video_id] for video_id in before)


def test_same_inputs_give_the_same_detections(predicted: SmallPipeline) -> None:
    before, _ = read_table(predicted.folder(FUSE), DETECTIONS)
    figures = fuse(predicted.fuse_job())
    after, _ = read_table(predicted.folder(FUSE), DETECTIONS)
    assert after.equals(before)
    assert figures == {"detections": after.num_rows, "detections_hash": content_hash(after)}


def test_free_weights_stay_inside_the_videos(
    store: Store, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of both signs, as strong as they come: what they fuse is still valid."""
    free = FUSION.model_copy(
        update={"class_weights": "free", "map_weights": "free", "refiner_weights": "free"}
    )
    asked: list[str] = []

    def negative(videos: Sequence[RefinedVideo], *, parametrisation: str) -> torch.Tensor:
        asked.append(parametrisation)
        return torch.tensor([30.0, -29.0]).double()

    monkeypatch.setattr(fuse_job, "fit_refiner_weights", negative)
    small = SmallPipeline.predicted(store, fusion=free)
    assert asked == ["free"] * FUSION.num_folds
    fused = proposals_of(read_table(small.folder(FUSE), PROPOSALS)[0], FUSED)
    cut = 0
    for video in small.data.videos:
        if video.video_id in fused:
            segments = fused[video.video_id].segments
            assert bool((segments[:, 0] >= 0).all())
            assert bool((segments[:, 0] <= segments[:, 1]).all())
            assert bool((segments[:, 1] <= video.duration_seconds).all())
            cut += int((segments == video.duration_seconds).sum())
    assert cut > 0
    for folder in (small.folder(PROPOSE), small.folder(FUSE)):
        titles = {entry.title: sum(entry.weights) for entry in read_weights(folder)}
        assert titles.pop("refined proposals", 1.0) == pytest.approx(1)
        assert all(total != pytest.approx(1, abs=1e-9) for total in titles.values()), titles


def test_single_refiners_are_listed_too(predicted: SmallPipeline) -> None:
    table, _ = read_table(predicted.folder(FUSE), PROPOSALS)
    assert set(table["member"].to_pylist()) == {FUSED, MEAN, "one", "two"}
    for member in (FUSED, MEAN, "one", "two"):
        assert sorted(proposals_of(table, member)) == predicted.evaluated
