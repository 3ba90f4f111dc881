"""Tables of videos in, rows of frames out; what hangs or crashes concerns one call only."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.tfn_jobs.small_extraction import SMALL
from tfn_jobs.decode_actor import CHUNK_SCHEMA, TODO_SCHEMA, DecodeActor, DecodeSettings
from tfn_platform.datasets.synthetic import render_video
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.video import iter_chunks

GRID = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=8, short_side=32)
SETTINGS = DecodeSettings(
    GRID, square=True, batch_clips=2, salvage=False, stall_seconds=5.0, max_attempts=1
)
FAULTY_READER = Path(__file__).resolve().parent.parent / "faulty_reader"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.mp4"
    path.write_bytes(render_video(SMALL, 0).data)
    return path


def decoded(actor: DecodeActor, *paths: Path) -> list[dict[str, Any]]:
    names = [path.stem for path in paths]
    uris = [str(path) for path in paths]
    columns = {"video_id": names, "uri": uris, "part": [7] * len(paths)}
    tables = list(actor(pa.table(columns, schema=TODO_SCHEMA)))
    assert all(table.schema == CHUNK_SCHEMA and table.num_rows == 1 for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_rows_are_the_chunks_and_then_the_end(good: Path) -> None:
    rows = decoded(DecodeActor(SETTINGS), good)
    expected = list(iter_chunks(str(good), GRID, clips_per_chunk=100, square=True))
    (whole,) = expected
    assert [row["is_end"] for row in rows] == [False, True]
    first, end = rows
    assert (first["video_id"], first["part"], first["num_clips"]) == ("good", 7, whole.num_clips)
    frames = np.frombuffer(first["frames"], np.uint8)
    np.testing.assert_array_equal(
        frames.reshape(-1, first["height"], first["width"], 3), whole.frames
    )
    assert (end["num_clips"], end["reason"], end["attempts"]) == (whole.num_clips, "", 1)


def test_a_damaged_video_has_an_end_only_and_the_next_one_follows(
    good: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    rows = decoded(DecodeActor(SETTINGS), bad, good)
    assert [(r["video_id"], r["reason"]) for r in rows if r["is_end"]] == [
        ("bad", "not_a_video"),
        ("good", ""),
    ]


@pytest.mark.parametrize(("name", "reason"), [("hang", "timed_out"), ("crash", "decoder_crashed")])
def test_after_a_hang_or_crash_the_rest_is_left_for_another_call(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """Several of them in one call kept all that was known waiting, until the job was given up."""
    monkeypatch.syspath_prepend(str(FAULTY_READER))
    faulty = tmp_path / f"{name}.mp4"
    faulty.write_bytes(good.read_bytes())
    actor = DecodeActor(SETTINGS)
    rows = decoded(actor, good, faulty, good)
    assert [(r["video_id"], r["reason"]) for r in rows if r["is_end"]] == [
        ("good", ""),
        (name, reason),
    ]
    assert [r["reason"] for r in decoded(actor, good) if r["is_end"]] == [""]
