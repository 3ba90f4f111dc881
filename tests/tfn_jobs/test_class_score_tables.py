import pytest
import torch

from tests.tfn_jobs.small_pipeline import FUSE
from tfn_jobs.class_score_tables import class_score_rows, logits_of
from tfn_platform.parquet import write_table
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import CLASS_SCORES

NAMES = ["c", "a", "b"]
LOGITS = {
    "fused": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "mean": -torch.arange(12, dtype=torch.float32).reshape(3, 4),
}


@pytest.fixture
def folder(store: Store) -> StageFolder:
    rows = class_score_rows(NAMES, LOGITS)
    write_table(FUSE.folder(store), CLASS_SCORES, rows, contract=FUSE.contract(CLASS_SCORES))
    FUSE.commit(store, seconds=0)
    return FUSE.folder(store)


@pytest.mark.parametrize("member", ["fused", "mean"])
def test_round_trip_in_any_order_of_videos(folder: StageFolder, member: str) -> None:
    assert torch.equal(logits_of(folder, NAMES, member=member), LOGITS[member])
    found = logits_of(folder, ["b", "c"], member=member)
    assert torch.equal(found, LOGITS[member][[2, 0]])


def test_a_video_without_scores_is_an_error(folder: StageFolder) -> None:
    with pytest.raises(KeyError, match="stranger"):
        logits_of(folder, ["a", "stranger"], member="mean")
