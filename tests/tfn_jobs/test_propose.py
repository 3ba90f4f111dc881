"""Fusion of boundary maps: out of fold, and equal to the plain mean where the weights are."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from tests.tfn_jobs.small_pipeline import FUSION, PROPOSE, SmallPipeline, some_videos
from tfn_jobs import propose as propose_job
from tfn_jobs.bmn_member import segments_in_extent
from tfn_jobs.folds import assign_folds
from tfn_jobs.proposal_tables import FUSED, MEAN, VideoProposals, proposals_of, ranked_for
from tfn_jobs.propose import ProposeJob, propose
from tfn_jobs.weights_file import read_weights
from tfn_models.bmn.decode import decode_proposals
from tfn_models.bmn.targets import bmn_targets
from tfn_models.boundary_maps import BmnTargets, BoundaryMaps, unpack_valid_cells
from tfn_models.fusion.boundary_maps import MapWeights, fuse_boundary_maps, uniform_map_weights
from tfn_models.nms import DETECTION_NMS, RECALL_NMS, soft_nms
from tfn_platform.parquet import content_hash, read_table
from tfn_platform.store import Store
from tfn_platform.tables import BOUNDARY_MAPS, PROPOSALS

FoundBy = Callable[[str], dict[str, VideoProposals]]


@pytest.fixture
def mapped(small: SmallPipeline, in_process: None) -> SmallPipeline:
    """Two BMNs of different D."""
    small.put_maps("one", num_bins=8)
    small.put_maps("two", num_bins=12)
    return small


def run(small: SmallPipeline, job: ProposeJob | None = None) -> FoundBy:
    propose(job or small.propose_job())
    small.commit(PROPOSE)
    table, _ = read_table(small.folder(PROPOSE), PROPOSALS)
    return lambda member: proposals_of(table, member)


def maps_of(small: SmallPipeline, member: str, video_id: str) -> BoundaryMaps:
    table, _ = read_table(small.bmns[member], BOUNDARY_MAPS)
    row = table.to_pylist()[table["video_id"].to_pylist().index(video_id)]
    return BoundaryMaps(
        torch.tensor([row["start"]]),
        torch.tensor([row["end"]]),
        unpack_valid_cells(torch.tensor([row["classification"]])),
        unpack_valid_cells(torch.tensor([row["regression"]])),
    )


def decoded(small: SmallPipeline, maps: BoundaryMaps, video: int, scoring: str) -> VideoProposals:
    data = small.data
    seconds = min(data.videos[video].duration_seconds, data.extent_seconds(video))
    found = decode_proposals(
        maps,
        scoring=scoring,  # type: ignore[arg-type]
        candidates=FUSION.candidates,
        extent_seconds=data.extent_seconds(video),
        video_seconds=seconds,
    )
    settings = RECALL_NMS if scoring == "recall" else DETECTION_NMS
    settings = replace(settings, max_outputs=FUSION.proposals_per_video)
    kept = soft_nms(found.segments, found.scores, settings=settings, video_length=seconds)
    return VideoProposals(found.segments[kept.indices], kept.scores)


def assert_equal(found: VideoProposals, expected: VideoProposals) -> None:
    torch.testing.assert_close(found.segments, expected.segments, rtol=0, atol=0)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)


def test_uniform_weights_give_the_mean(
    mapped: SmallPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        propose_job, "fit_map_weights", lambda members, *_, **__: uniform_map_weights(len(members))
    )
    found = run(mapped)
    for scoring in ("detection", "recall"):
        fused, mean = found(ranked_for(FUSED, scoring)), found(ranked_for(MEAN, scoring))
        for video_id in mapped.evaluated:
            assert_equal(fused[video_id], mean[video_id])


def test_members_are_decoded_as_they_are(mapped: SmallPipeline) -> None:
    found = run(mapped)
    for member, scoring in itertools.product(("one", "two"), ("detection", "recall")):
        videos = found(ranked_for(member, scoring))
        assert sorted(videos) == mapped.evaluated
        for v, video in enumerate(mapped.data.videos):
            if video.video_id in videos:
                expected = decoded(mapped, maps_of(mapped, member, video.video_id), v, scoring)
                assert_equal(videos[video.video_id], expected)
                assert expected.segments.max() <= video.duration_seconds


def test_weights_of_a_fold_come_from_the_other_folds(
    mapped: SmallPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[MapWeights] = []
    seen: list[list[str]] = []
    data = mapped.data
    targets_of = {
        data.videos[v].video_id: bmn_targets(
            [segments_in_extent(data, v, min_seconds=0)], num_bins=FUSION.num_bins
        )
        for v in data.of_subset("validation")
    }

    def record(
        members: Sequence[BoundaryMaps], targets: BmnTargets, *, parametrisation: str, seed: int
    ) -> MapWeights:
        assert parametrisation == FUSION.map_weights
        share = torch.tensor([0.2 + 0.3 * len(given), 0.8 - 0.3 * len(given)]).double()
        given.append(MapWeights(share, share, share.flip(0), share))
        seen.append(
            [
                name
                for row in targets.iou
                for name, own in targets_of.items()
                if torch.equal(own.iou[0], row)
            ]
        )
        return given[-1]

    monkeypatch.setattr(propose_job, "fit_map_weights", record)
    found = run(mapped)(ranked_for(FUSED, "detection"))
    folds = assign_folds(mapped.evaluated, FUSION.num_folds, seed=data.seed)
    everyone = set(mapped.evaluated)
    for fold, names in enumerate(seen):
        assert len(names) == len(set(names))
        assert set(names) == {name for name in everyone if folds[name] != fold}
    for v, video in enumerate(data.videos):
        if video.subset == "training":
            mean = torch.stack([w.start for w in given]).mean(0)
            weights = MapWeights(mean, mean, mean.flip(0), mean)
        else:
            weights = given[folds[video.video_id]]
        members = [maps_of(mapped, name, video.video_id) for name in ("one", "two")]
        fused = fuse_boundary_maps(members, weights, num_bins=FUSION.num_bins)
        assert_equal(found[video.video_id], decoded(mapped, fused, v, "detection"))


def test_a_videos_own_annotation_does_not_reach_its_proposals(
    store: Store, in_process: None
) -> None:
    def found(root: str, *, changed: str) -> FoundBy:
        videos = [
            replace(video, segments=(("jump", 0.1, 0.9),)) if video.video_id == changed else video
            for video in some_videos()
        ]
        small = SmallPipeline.make(Store.open(f"{store.root}/{root}"), videos)
        small.put_maps("one", num_bins=8)
        small.put_maps("two", num_bins=12)
        return run(small)

    before = found("before", changed="none")(ranked_for(FUSED, "recall"))
    after = found("after", changed="video06")(ranked_for(FUSED, "recall"))
    assert torch.equal(before["video06"].scores, after["video06"].scores)
    assert torch.equal(before["video06"].segments, after["video06"].segments)
    differing = [n for n in before if not torch.equal(before[n].scores, after[n].scores)]
    assert differing


def test_parts_make_no_difference(mapped: SmallPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are decoded by the part; parts of three videos give what one part of all gives."""
    whole = run(mapped)
    before = content_hash(read_table(mapped.folder(PROPOSE), PROPOSALS)[0])
    weights = read_weights(mapped.folder(PROPOSE))
    monkeypatch.setattr(propose_job, "VIDEOS_PER_PART", 3)
    monkeypatch.setattr("tests.tfn_jobs.small_pipeline.VIDEOS_PER_PART", 3)
    mapped.put_maps("one", num_bins=8)
    mapped.put_maps("two", num_bins=12)
    parts = run(mapped)
    assert len(mapped.store.list_files(mapped.folder(PROPOSE).table("proposals"))) == 4
    assert content_hash(read_table(mapped.folder(PROPOSE), PROPOSALS)[0]) == before
    assert read_weights(mapped.folder(PROPOSE)) == weights
    assert whole(ranked_for(FUSED, "recall")).keys() == parts(ranked_for(FUSED, "recall")).keys()


def test_training_videos_get_fused_proposals_only(mapped: SmallPipeline) -> None:
    found = run(mapped)
    training = {v.video_id for v in mapped.data.videos if v.subset == "training"}
    assert training < found(ranked_for(FUSED, "detection")).keys()
    assert not training & found(ranked_for(MEAN, "detection")).keys()
    assert not training & found(ranked_for("one", "recall")).keys()


def test_fitting_is_bounded(mapped: SmallPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record(
        members: Sequence[BoundaryMaps], targets: BmnTargets, *, parametrisation: str, seed: int
    ) -> MapWeights:
        assert parametrisation == FUSION.map_weights
        sizes.append(len(targets.iou))
        assert all(len(maps.start) == sizes[-1] for maps in members)
        return uniform_map_weights(len(members))

    monkeypatch.setattr(propose_job, "fit_map_weights", record)
    run(mapped, mapped.propose_job(FUSION.model_copy(update={"max_fitting_videos": 5})))
    # Each of the five is in one fold of three.
    assert sum(sizes) == 10 and max(sizes) <= 5
