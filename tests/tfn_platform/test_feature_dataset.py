"""A PyTorch data set over features: resized as the models do, padded, in workers of both kinds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.s3_server import s3_endpoint, s3_root
from tests.some_features import feature_contract, random_videos, write_parts
from tfn_models.layers.resize import resize_sequence
from tfn_platform.feature_cache import FeatureCache
from tfn_platform.feature_dataset import (
    FeatureBatch,
    FeatureDataset,
    FeatureItem,
    collate_features,
    resize_features,
)
from tfn_platform.feature_index import FeatureReader
from tfn_platform.store import StageFolder, Store

__all__ = ["s3_endpoint", "s3_root"]

NUM_VIDEOS = 12


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> StageFolder:
    root = str(tmp_path / "store")
    if request.param == "s3":
        root = request.getfixturevalue("s3_root")
    return write_some(Store.open(root), "float16")


def write_some(store: Store, value_type: Any) -> StageFolder:
    contract = feature_contract(value_type)
    videos = random_videos(contract, **{f"v{n:02d}": 1 + 3 * n for n in range(NUM_VIDEOS)})
    return write_parts(store, [videos[:5], videos[5:]], contract=contract)


@pytest.fixture
def local(tmp_path: Path) -> StageFolder:
    return write_some(Store.open(str(tmp_path / "store")), "float32")


@pytest.mark.parametrize("num_clips", [1, 2, 7, 100, 333])
@pytest.mark.parametrize("length", [1, 2, 64, 100, 101])
def test_resizing_gives_the_models_numbers(num_clips: int, length: int) -> None:
    generator = torch.Generator().manual_seed(num_clips)
    features = torch.randn(num_clips, 5, generator=generator)
    ours = resize_features(features, length)
    assert torch.equal(ours, resize_sequence(features, length))
    for cell in range(length):
        at = min(max((cell + 0.5) * num_clips / length - 0.5, 0), num_clips - 1)
        expected = [np.interp(at, np.arange(num_clips), column) for column in features.T.numpy()]
        np.testing.assert_allclose(ours[cell], expected, atol=1e-5)


def test_items_are_videos_by_number(folder: StageFolder) -> None:
    reader = FeatureReader(folder)
    dataset = FeatureDataset(folder)
    assert len(dataset) == NUM_VIDEOS and dataset.video_ids == reader.video_ids
    for number, name in enumerate(reader.video_ids):
        item = dataset[number]
        assert item.video_id == name and item.features.dtype == torch.float32
        np.testing.assert_array_equal(item.features, reader.read(name).astype(np.float32))
    some = FeatureDataset(folder, ["v03", "v01"], length=6)
    expected = torch.from_numpy(reader.read("v01").astype(np.float32))
    assert torch.equal(some[1].features, resize_sequence(expected, 6))


def test_an_item_is_its_own(local: StageFolder) -> None:
    dataset = FeatureDataset(local)
    dataset[3].features.zero_()
    assert dataset[3].features.abs().sum() > 0


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("cached", [False, True])
def test_workers_read_an_epoch(
    folder: StageFolder, tmp_path: Path, start: str, cached: bool
) -> None:
    """Forked after the parent has read, and while parts are on their way."""
    cache = FeatureCache(tmp_path / "cache", max_bytes=2**30) if cached else None
    dataset = FeatureDataset(folder, cache=cache)
    dataset[0]
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=dataset.epoch(np.random.default_rng(0).permutation(NUM_VIDEOS).tolist()),
        batch_size=5,
        num_workers=2 if start == "fork" else 1,
        collate_fn=collate_features,
        multiprocessing_context=start,
        timeout=60,
    )
    seen = {}
    for batch in loader:
        assert isinstance(batch, FeatureBatch)
        for row, name in enumerate(batch.video_ids):
            seen[name] = batch.features[row][batch.mask[row]]
            assert not batch.features[row][~batch.mask[row]].any()
    reader = FeatureReader(folder)
    assert sorted(seen) == list(reader.video_ids)
    for name, features in seen.items():
        np.testing.assert_array_equal(features, reader.read(name).astype(np.float32))


def test_padding_by_hand() -> None:
    items = [FeatureItem("a", torch.ones(2, 3)), FeatureItem("b", torch.full((1, 3), 2.0))]
    batch = collate_features(items)
    assert batch.video_ids == ("a", "b")
    assert batch.features[:, :, 0].tolist() == [[1, 1], [2, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]


def test_what_does_not_fit_is_refused(local: StageFolder) -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        FeatureDataset(local, length=0)
    with pytest.raises(KeyError, match="no features of video 'x'"):
        FeatureDataset(local, ["v01", "x"])
    with pytest.raises(ValueError, match="mask"):
        FeatureBatch(("a",), torch.zeros(1, 2, 3), torch.zeros(1, 3).bool())
    with pytest.raises(ValueError, match="2 videos, but 1 names"):
        FeatureBatch(("a",), torch.zeros(2, 2, 3), torch.zeros(2, 2).bool())
