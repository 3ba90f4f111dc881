"""What was kept is found again, whoever wrote it; what was not finished does not count."""

from pathlib import Path

import numpy as np

from tests.tfn_jobs.small_pipeline import CONTRACT, EXTRACT, FEATURE_DIM
from tfn_jobs.part_journal import FOLDER, Outcome, PartJournal
from tfn_platform.feature_table import VideoFeatures
from tfn_platform.store import Store
from tfn_platform.tables import FEATURES

GOOD, BAD = Outcome("good", "/good", 3), Outcome("bad", "/bad", 0, "truncated", "why", 2)
OTHER = Outcome("other", "/other", 1)


def features(video_id: str, num_clips: int) -> VideoFeatures:
    values = np.full((num_clips, FEATURE_DIM), num_clips, np.float32)
    return VideoFeatures(video_id, values, np.arange(num_clips, dtype=np.float64))


def journal(store: Store) -> PartJournal:
    return PartJournal(EXTRACT.folder(store), EXTRACT.contract(FEATURES, features=CONTRACT))


def test_another_run_finds_what_was_kept(store: Store) -> None:
    first = journal(store)
    assert first.parts == [] and first.outcomes(3) == [] and first.features(3) == []
    first.keep(3, [GOOD, BAD], [features("good", 3)])
    first.keep(3, [OTHER], [features("other", 1)])
    first.keep(5, [BAD], [])
    for found in (first, journal(store)):
        assert found.parts == [3, 5]
        assert sorted(o.video_id for o in found.outcomes(3)) == ["bad", "good", "other"]
        assert BAD in found.outcomes(3) and found.outcomes(5) == [BAD]
        lengths = {video.video_id: len(video.values) for video in found.features(3)}
        assert lengths == {"good": 3, "other": 1}
        assert found.features(5) == []


def test_a_fragment_without_its_record_does_not_count(store: Store) -> None:
    """Killed after the features, before the record."""
    journal(store).keep(3, [GOOD], [features("good", 3)])
    folder = Path(store.root) / EXTRACT.folder(store).file(FOLDER)
    (record,) = folder.glob("*.json")
    record.unlink()
    again = journal(store)
    assert again.parts == []
    again.clear()
    assert not folder.exists()


def test_dropping_a_part_leaves_the_others(store: Store) -> None:
    kept = journal(store)
    kept.keep(3, [GOOD], [features("good", 3)])
    kept.keep(5, [OTHER], [features("other", 1)])
    kept.drop(3)
    assert kept.parts == journal(store).parts == [5]
    kept.drop(3)
    folder = Path(store.root) / EXTRACT.folder(store).file(FOLDER)
    assert len(list(folder.iterdir())) == 2
