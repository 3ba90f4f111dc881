"""Rows come in any order, twice, and between kills: the parts must not depend on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.s3_server import s3_endpoint, s3_root
from tests.tfn_jobs.small_pipeline import CONTRACT, EXTRACT, FEATURE_DIM
from tfn_jobs.decode_actor import CHUNK_SCHEMA
from tfn_jobs.feature_parts import FeatureParts
from tfn_jobs.part_plan import PartPlan
from tfn_platform.errors import StageError
from tfn_platform.feature_table import read_feature_file
from tfn_platform.parquet import read_parts
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.store import Store
from tfn_platform.tables import DAMAGED, QUARANTINE, FeatureContract

__all__ = ["s3_endpoint", "s3_root"]

GRID = SamplingGrid(15, 1, frames_per_clip=8, short_side=32)  # type: ignore[arg-type]
PARTS = {"a": 0, "bad": 0, "c": 0, "d": 1, "hung": 1, "used": 1}
PLAN = PartPlan(
    pa.table(
        {
            "video_id": list(PARTS),
            "uri": [f"/{name}" for name in PARTS],
            "part": pa.array(list(PARTS.values()), pa.int32()),
        }
    ),
    np.bincount(list(PARTS.values())),
)
ROW_SCHEMA = pa.schema(
    [
        pa.field("features", pa.large_binary()) if field.name == "frames" else field
        for field in CHUNK_SCHEMA
    ]
)


def row(video_id: str, **values: object) -> pa.Table:
    numbers = dict.fromkeys(
        ("first_clip", "num_clips", "first_tick", "height", "width", "attempts"), 0
    )
    texts = {"reason": "", "detail": "", "features": b"", "is_end": False}
    place = {"video_id": video_id, "uri": f"/{video_id}", "part": PARTS[video_id]}
    return pa.Table.from_pylist([{**place, **numbers, **texts, **values}], schema=ROW_SCHEMA)


def chunk(video_id: str, first_clip: int, num_clips: int) -> pa.Table:
    values = np.arange(num_clips * FEATURE_DIM, dtype=np.float32) + 100 * first_clip
    place = {"first_clip": first_clip, "num_clips": num_clips}
    return row(video_id, features=values.tobytes(), **place)


def end(video_id: str, num_clips: int, reason: str = "", attempts: int = 1) -> pa.Table:
    why = {"reason": reason, "detail": "why" if reason else "", "attempts": attempts}
    return row(video_id, is_end=True, num_clips=num_clips, **why)


ROWS = [
    chunk("a", 0, 2),
    chunk("a", 2, 1),
    end("a", 3),
    chunk("bad", 0, 2),
    end("bad", 0, "truncated"),
    chunk("c", 0, 1),
    end("c", 1),
    chunk("d", 0, 2),
    end("d", 2),
    end("hung", 0, "timed_out", attempts=2),
    chunk("used", 0, 1),
    end("used", 1, "corrupt_frames"),
]


def gather(
    store: Store,
    *,
    journal_seconds: float = 1e9,
    plan: PartPlan = PLAN,
    contract: FeatureContract = CONTRACT,
) -> FeatureParts:
    return FeatureParts(
        EXTRACT,
        EXTRACT.folder(store),
        grid=GRID,
        contract=contract,
        plan=plan,
        journal_seconds=journal_seconds,
    )


def todo(parts: FeatureParts) -> list[str]:
    names: list[str] = parts.todo()["video_id"].to_pylist()
    return names


def files(store: Store) -> dict[str, bytes]:
    folder = Path(store.root) / EXTRACT.folder(store).relative
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What rows in order leave."""
    store = Store.open(str(tmp_path_factory.mktemp("expected")))
    parts = gather(store)
    assert sum(parts.add(r) for r in ROWS) == len(PARTS)
    assert todo(parts) == []
    parts.close()
    return files(store)


def test_rows_become_videos_and_videos_parts(store: Store) -> None:
    parts = gather(store)
    assert parts.add(pa.concat_tables(ROWS)) == len(PARTS)
    folder = EXTRACT.folder(store)
    first = read_feature_file(store, folder.file("features/part-00000.parquet"))
    assert [video.video_id for video in first] == ["a", "c"]
    np.testing.assert_array_equal(first[0].values, [[0, 1, 2], [3, 4, 5], [200, 201, 202]])
    np.testing.assert_array_equal(first[0].center_seconds, [0.5, 1.5, 2.5])
    second = read_feature_file(store, folder.file("features/part-00001.parquet"))
    assert [video.video_id for video in second] == ["d", "used"]
    quarantine = read_parts(folder, QUARANTINE)[0].to_pylist()
    assert [(r["video_id"], r["reason"], r["detail"], r["attempts"]) for r in quarantine] == [
        ("bad", "truncated", "why", 1),
        ("hung", "timed_out", "why", 2),
    ]
    damaged = read_parts(folder, DAMAGED)[0].to_pylist()
    assert [(r["video_id"], r["reason"]) for r in damaged] == [("used", "corrupt_frames")]
    assert parts.quarantined == {"truncated": 1, "timed_out": 1}


def test_what_a_sound_end_tells_is_counted_and_changes_no_byte(
    store: Store, expected: dict[str, bytes]
) -> None:
    """An unusable or damaged video's detail is what is wrong with it, and in a table."""
    parts = gather(store)
    told = {2: "no such codec", 6: "no such codec", 8: "another reason"}
    for number, some in enumerate(ROWS):
        if number in told:
            place = some.schema.get_field_index("detail")
            some = some.set_column(place, "detail", pa.array([told[number]]))
        parts.add(pa.concat_tables([some, some]))
    assert parts.fallbacks == {"no such codec": 2, "another reason": 1}
    parts.close()
    assert files(store) == expected


def run_and_die(store: Store, rows: Sequence[pa.Table], *, journal_seconds: float) -> None:
    """A driver that takes some rows and is gone without a word."""
    parts = gather(store, journal_seconds=journal_seconds)
    for some in rows:
        parts.add(some)


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_order_repetition_and_kills_change_no_byte(
    tmp_path_factory: pytest.TempPathFactory, expected: dict[str, bytes], data: st.DataObject
) -> None:
    """Drivers that take any rows and die, journals or none, and one that gets all that is left."""
    store = Store.open(str(tmp_path_factory.mktemp("killed")))
    for _ in range(data.draw(st.integers(0, 3))):
        chosen = data.draw(st.lists(st.sampled_from(range(len(ROWS))), max_size=20))
        seconds = data.draw(st.sampled_from([0.0, 1e9]))
        run_and_die(store, [ROWS[number] for number in chosen], journal_seconds=seconds)
    parts = gather(store)
    before = todo(parts)
    last = data.draw(st.permutations(range(len(ROWS))))
    left = [ROWS[n] for n in last if ROWS[n]["video_id"][0].as_py() in before]
    repeated = [*left[: len(left) // 2], *left]
    assert sum(parts.add(some) for some in repeated) == len(before)
    assert todo(parts) == []
    parts.close()
    found, whole = files(store), dict(expected)
    # What timed out is tried again by each run, and its attempts add up.
    late = "quarantine/part-00001.parquet"
    assert found.keys() == whole.keys() and late in found
    assert {name: found[name] for name in found if name != late} == {
        name: whole[name] for name in whole if name != late
    }
    rows = read_parts(EXTRACT.folder(store), QUARANTINE)[0].to_pylist()
    assert [(row["video_id"], row["reason"]) for row in rows] == [
        ("bad", "truncated"),
        ("hung", "timed_out"),
    ]


def test_what_is_journaled_is_not_done_again(store: Store) -> None:
    run_and_die(store, ROWS[:5], journal_seconds=0.0)
    again = gather(store)
    assert todo(again) == ["c", "d", "hung", "used"]
    assert again.quarantined == {"truncated": 1}


def test_what_is_left_is_no_copy_of_the_plan_where_nothing_is_made(store: Store) -> None:
    assert gather(store).todo() is PLAN.videos


def test_a_parts_videos_are_looked_up_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was once for each of its videos, so 64 times 64 names for every part."""
    parts, asked = gather(store), list[int]()
    look_up = PartPlan.video_ids

    def counted(plan: PartPlan, part: int) -> set[str]:
        asked.append(part)
        return look_up(plan, part)

    monkeypatch.setattr(PartPlan, "video_ids", counted)
    parts.add(pa.concat_tables(ROWS))
    # For what became of them, and for whether all are there.
    assert asked == [0, 0, 1, 1]


def test_without_the_journal_only_whole_parts_are_kept(store: Store) -> None:
    run_and_die(store, ROWS[:8], journal_seconds=1e9)
    assert todo(gather(store)) == ["d", "hung", "used"]
    assert not any("progress" in name for name in files(store))


def test_an_object_store_ends_with_the_same_bytes(s3_root: str, expected: dict[str, bytes]) -> None:
    """There is no rename there: an object is there whole, or not at all."""
    store = Store.open(s3_root)
    run_and_die(store, ROWS[:8], journal_seconds=0.0)
    parts = gather(store, journal_seconds=0.0)
    assert todo(parts) == ["d", "hung", "used"]
    parts.add(pa.concat_tables(ROWS[7:]))
    parts.close()
    folder = EXTRACT.folder(store)
    found = {
        f"{table}/{name}": store.read_bytes(folder.file(f"{table}/{name}"))
        for table in ("features", "quarantine", "damaged", "progress")
        for name in store.list_files(folder.file(table))
    }
    assert found == expected


def test_flush_keeps_what_is_finished(store: Store) -> None:
    parts = gather(store)
    parts.add(ROWS[5])
    parts.add(ROWS[6])
    parts.flush()
    assert todo(gather(store)) == ["a", "bad", "d", "hung", "used"]


def test_a_passing_trouble_is_tried_again(store: Store) -> None:
    """A storage that was away must not keep a video out for good."""
    parts = gather(store)
    parts.add(pa.concat_tables(ROWS))
    before = files(store)
    again = gather(store)
    assert todo(again) == ["hung"]
    assert again.quarantined == {"truncated": 1}
    assert files(store) == before
    assert again.add(pa.concat_tables([chunk("hung", 0, 2), end("hung", 2)])) == 1
    again.close()
    folder = EXTRACT.folder(store)
    second = read_feature_file(store, folder.file("features/part-00001.parquet"))
    assert [video.video_id for video in second] == ["d", "hung", "used"]
    assert read_parts(folder, DAMAGED)[0].num_rows == 1
    assert todo(gather(store)) == []


def test_a_passing_trouble_in_the_journal_is_tried_again(store: Store) -> None:
    """It counted as over for good: after an outage the same command failed at once."""
    run_and_die(store, [ROWS[9]], journal_seconds=0.0)
    again = gather(store)
    assert "hung" in todo(again)
    assert again.quarantined == {}
    again.add(pa.concat_tables([*ROWS[7:9], ROWS[9], *ROWS[10:]]))
    rows = read_parts(EXTRACT.folder(store), QUARANTINE)[0].to_pylist()
    assert [(row["video_id"], row["attempts"]) for row in rows] == [("hung", 4)]


def test_what_cannot_be_stored_costs_one_video(store: Store) -> None:
    """A single infinity stopped the driver, in this run and in all after it."""
    parts = gather(store)
    values = np.full((1, FEATURE_DIM), np.inf, np.float32)
    spoilt = row("c", first_clip=0, num_clips=1, features=values.tobytes())
    parts.add(pa.concat_tables([spoilt, end("c", 1)]))
    assert parts.quarantined == {"features_not_finite": 1}
    parts.add(pa.concat_tables(ROWS[:5]))
    rows = read_parts(EXTRACT.folder(store), QUARANTINE)[0].to_pylist()
    assert [(r["video_id"], r["reason"]) for r in rows] == [
        ("bad", "truncated"),
        ("c", "features_not_finite"),
    ]


def test_chunks_of_another_cut_are_forgotten_between_rounds(store: Store) -> None:
    """A video that was replaced meanwhile never became whole: its old chunks were in the way."""
    parts = gather(store)
    parts.add(pa.concat_tables([chunk("c", 0, 1), chunk("c", 1, 1)]))
    parts.forget_unfinished()
    assert parts.add(pa.concat_tables([chunk("c", 0, 1), end("c", 1)])) == 1


def test_chunks_must_be_all_clips_each_once(store: Store) -> None:
    parts = gather(store)
    assert parts.add(pa.concat_tables([chunk("a", 1, 2), chunk("a", 2, 1), end("a", 3)])) == 0


def test_a_part_that_another_driver_made_is_taken_over(store: Store) -> None:
    """Its fragments are gone by then."""
    run_and_die(store, ROWS[:5], journal_seconds=0.0)
    late = gather(store)
    other = gather(store)
    other.add(pa.concat_tables(ROWS))
    other.close()
    assert late.add(pa.concat_tables([*ROWS[5:7], *ROWS[7:]])) == 4
    assert todo(late) == []
    late.close()


def test_nothing_is_left_of_a_kill_in_the_middle_of_writing(
    store: Store, expected: dict[str, bytes]
) -> None:
    """Hidden files with half of their content."""
    run_and_die(store, ROWS[:5], journal_seconds=0.0)
    folder = Path(store.root) / EXTRACT.folder(store).relative
    (folder / "progress" / ".part-00000.abc.json.xyz").write_text("half")
    (folder / "features").mkdir(exist_ok=True)
    (folder / "features" / ".part-00000.parquet.xyz").write_text("half")
    parts = gather(store)
    parts.add(pa.concat_tables(ROWS))
    parts.close()
    assert files(store) == expected


def test_fragments_that_went_missing_are_done_again(store: Store) -> None:
    run_and_die(store, ROWS[:5], journal_seconds=0.0)
    late = gather(store)
    for path in (Path(store.root) / EXTRACT.folder(store).relative / "progress").iterdir():
        path.unlink()
    late.add(pa.concat_tables(ROWS[5:7]))
    assert todo(late) == ["a", "bad", "d", "hung", "used"]


def test_parts_of_other_videos_do_not_count(store: Store) -> None:
    """VIDEOS were made again, and are others now."""
    gather(store).add(pa.concat_tables(ROWS))
    videos = PLAN.videos.filter(pc.not_equal(PLAN.videos["video_id"], "a"))
    plan = PartPlan(videos, np.array([2, 3]))
    assert todo(gather(store, plan=plan)) == ["bad", "c", "hung"]


def test_parts_made_in_another_way_are_refused_at_once(store: Store) -> None:
    """It was said after all the work had been done."""
    gather(store).add(pa.concat_tables(ROWS))
    other = CONTRACT.model_copy(update={"decoder": "PyAV 99"})
    with pytest.raises(StageError, match=r"decoder: 'none', needed 'PyAV 99'.*take .* away"):
        gather(store, contract=other)
