"""Small FEATURES at random, written as any stage writes them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tfn_platform.feature_index import write_index
from tfn_platform.feature_table import VideoFeatures, write_feature_part
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import FEATURES, FeatureContract

STAGE = Stage("extract", {})
DIM = 4


def feature_contract(
    value_type: Literal["float32", "float16"] = "float32", **changes: Any
) -> FeatureContract:
    """A contract of features of width 4, twice a second, with anything else changed."""
    content = {
        "backbone": "tiny",
        "weights_hash": "abc",
        "feature_dim": DIM,
        "frames_per_clip": 8,
        "frame_rate": "15",
        "stride_seconds": "1/2",
        "alignment": "center",
        "short_side": 32,
        "normalization": "mean 0.45, std 0.225",
        "decoder": "PyAV 14",
        "value_type": value_type,
    }
    return FeatureContract.model_validate({**content, **changes})


def random_videos(
    contract: FeatureContract, *, seed: int = 0, **num_clips: int
) -> list[VideoFeatures]:
    """A video for each name, as features after a ReLU and an average would be."""
    rng = np.random.default_rng(seed)
    videos = []
    for name, count in num_clips.items():
        values = np.abs(rng.standard_normal((count, contract.feature_dim)))
        videos.append(
            VideoFeatures(name, values.astype(contract.value_type), contract.center_seconds(count))
        )
    return videos


def write_parts(
    store: Store,
    parts: Sequence[Sequence[VideoFeatures]],
    *,
    contract: FeatureContract,
    stage: Stage = STAGE,
) -> StageFolder:
    """Write parts and their index, and commit the stage."""
    folder = stage.folder(store)
    for number, videos in enumerate(parts):
        table_contract = stage.contract(FEATURES, features=contract)
        write_feature_part(folder, videos, contract=table_contract, part=number)
    write_index(folder)
    stage.commit(store, seconds=0)
    return folder
