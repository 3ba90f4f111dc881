"""What is found of parts that earlier runs have made."""

from collections import Counter

import numpy as np
import pyarrow as pa

from tests.tfn_jobs.small_pipeline import CONTRACT, EXTRACT, FEATURE_DIM
from tfn_jobs.made_parts import MadeParts
from tfn_jobs.part_journal import Outcome
from tfn_jobs.part_plan import PartPlan
from tfn_platform.feature_table import VideoFeatures
from tfn_platform.store import Store


def made_parts(store: Store, *parts: str) -> MadeParts:
    """Of a plan whose parts hold videos of one letter each."""
    names, sizes = list("".join(parts)), [len(part) for part in parts]
    numbers = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
    videos = pa.table({"video_id": names, "uri": names, "part": numbers})
    plan = PartPlan(videos, np.array(sizes))
    return MadeParts(EXTRACT, EXTRACT.folder(store), contract=CONTRACT, plan=plan)


def write(parts: MadeParts, number: int, outcomes: list[Outcome]) -> None:
    features = [
        VideoFeatures(o.video_id, np.ones((o.num_clips, FEATURE_DIM), np.float32), np.zeros(1))
        for o in outcomes
        if o.num_clips
    ]
    parts.write(number, outcomes, features)


def test_no_more_than_the_reasons_is_kept_of_a_part(store: Store) -> None:
    """An object a video was kept: at half a million videos, 300 MB on every run but the first."""
    parts = made_parts(store, "abc", "de", "fg", "h")
    damaged = Outcome("a", "/a", 1, "corrupt_frames", "why")
    late = [Outcome(name, f"/{name}", 0, "timed_out", "why") for name in "bc"]
    write(parts, 0, [damaged, *late])
    write(parts, 1, [Outcome("d", "/d", 1), Outcome("e", "/e", 1)])
    write(parts, 3, [Outcome("h", "/h", 0, "truncated", "why")])
    assert parts.look() == {0: Counter(timed_out=2), 1: Counter(), 3: Counter(truncated=1)}


def test_parts_of_other_videos_are_passed_over(store: Store) -> None:
    parts = made_parts(store, "ab", "c", "d")
    write(parts, 0, [Outcome("a", "/a", 1)])
    write(parts, 1, [Outcome("x", "/x", 1)])
    write(parts, 2, [Outcome("d", "/d", 1)])
    assert parts.look().keys() == {2}
    assert made_parts(store, "a", "x").look().keys() == {0, 1}
