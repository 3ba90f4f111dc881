import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tfn_jobs.small_pipeline import EXTRACT, SmallPipeline
from tfn_jobs.member_data import (
    batches,
    member_seed,
    num_batches,
    pad_sequences,
    segments_in_extent,
    shuffled_batches,
)
from tfn_platform.feature_index import FeatureReader


def test_videos_and_features_belong_together(small: SmallPipeline) -> None:
    data, reader = small.data, FeatureReader(small.folder(EXTRACT))
    lengths = {video.video_id: video.num_clips for video in small.videos}
    assert data.features.video_ids == tuple(video.video_id for video in data.videos)
    for v, video in enumerate(data.videos):
        features = data.feature_tensor(v)
        assert features.shape == (lengths[video.video_id], 3)
        assert torch.equal(features, torch.tensor(reader.read(video.video_id)))
        assert data.extent_seconds(v) == 0.5 * lengths[video.video_id]
    assert data.of_subset("training") == [0, 1, 2, 3]
    assert data.of_subset("validation") == list(range(4, 12))
    data.feature_tensor(0).zero_()
    assert data.feature_tensor(0).abs().sum() > 0


def test_segments_are_cut_to_the_extent(small: SmallPipeline) -> None:
    data = small.data
    v = 3
    video, extent = data.videos[v], data.extent_seconds(v)
    clips = data.segments_inside(v, min_seconds=0, unit_seconds=0.5)
    torch.testing.assert_close(clips * 0.5, video.segments.clamp(0, extent))
    shares = segments_in_extent(data, v, min_seconds=0)
    torch.testing.assert_close(shares * extent, clips * 0.5)
    assert shares.max() <= 1
    assert len(segments_in_extent(data, v, min_seconds=1e3)) == 0


def test_segments_beyond_the_extent_are_left_out(small: SmallPipeline) -> None:
    data = small.data
    video = data.videos[0]
    object.__setattr__(video, "segments", torch.tensor([[1.0, 99.0], [98.0, 99.0]]).double())
    found = data.segments_inside(0, min_seconds=0, unit_seconds=1.0)
    assert found.tolist() == [[1.0, data.extent_seconds(0)]]


@given(st.lists(st.integers(), unique=True, max_size=20), st.integers(1, 7), st.integers(0, 3))
def test_batches_cover_all_once(indices: list[int], size: int, epoch: int) -> None:
    in_order = list(batches(indices, size))
    shuffled = list(shuffled_batches(indices, size, seed=5, epoch=epoch))
    for found in (in_order, shuffled):
        assert len(found) == num_batches(indices, size)
        assert all(len(batch) == size for batch in found[:-1])
    assert [index for batch in in_order for index in batch] == indices
    assert sorted(index for batch in shuffled for index in batch) == sorted(indices)
    assert shuffled == list(shuffled_batches(indices, size, seed=5, epoch=epoch))


def test_each_epoch_has_its_own_order() -> None:
    orders = {
        str(list(shuffled_batches(range(20), 4, seed=seed, epoch=epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_padding() -> None:
    padded, mask = pad_sequences([torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 3)])
    assert padded.shape == (3, 4, 3)
    assert mask.tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [True, False, False, False],
    ]
    assert torch.equal(padded.sum(2), 3.0 * mask)


@pytest.mark.parametrize("names", [("bmn/d32", "bmn/d48"), ("bmn/one", "refiner/one")])
def test_each_member_has_its_own_seed(small: SmallPipeline, names: tuple[str, str]) -> None:
    first, second = (member_seed(small.data, name) for name in names)
    assert first != second
    assert member_seed(small.data, names[0]) == first
    assert 0 <= first < 2**63
