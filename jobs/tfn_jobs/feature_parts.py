"""FEATURES as they come in: chunks to videos, videos to parts, each written once it is whole.

What is finished of other parts goes into a journal every now and then. Rows may come in any order,
and twice; a part's bytes depend on neither, nor on how often the extraction was killed.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfn_jobs.part_journal import Outcome, PartJournal
from tfn_jobs.part_plan import PartPlan
from tfn_platform.feature_table import (
    VideoFeatures,
    feature_part,
    read_feature_file,
    write_feature_part,
)
from tfn_platform.parquet import part_number, read_part, write_table
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import DAMAGED, FEATURES, QUARANTINE, FeatureContract, Table

JOURNAL_BYTES = 256 << 20
READERS = 16

_Named = TypeVar("_Named", Outcome, VideoFeatures)


@dataclass
class _Unfinished:
    """A video some of whose rows have come."""

    chunks: dict[int, NDArray[np.generic]] = field(default_factory=dict)
    end: Outcome | None = None

    @property
    def is_over(self) -> bool:
        if self.end is None:
            return False
        return self.end.num_clips == sum(map(len, self.chunks.values())) or not self.end.num_clips


@dataclass
class _OpenPart:
    """A part that is not whole yet."""

    over: set[str]
    """Videos that need no more rows, whether journaled or in `outcomes`."""
    unfinished: dict[str, _Unfinished] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    features: list[VideoFeatures] = field(default_factory=list)


class FeatureParts:
    """Gathers rows into videos and videos into parts; knows what is still to do."""

    def __init__(
        self,
        stage: Stage,
        folder: StageFolder,
        *,
        grid: SamplingGrid,
        contract: FeatureContract,
        plan: PartPlan,
        journal_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at what earlier runs have made."""
        self._stage = stage
        self._folder = folder
        self._grid = grid
        self._contract = contract
        self._plan = plan
        self._journal_seconds = journal_seconds
        self._clock = clock
        self._journaled = clock()
        self._held_bytes = 0
        self._centers = np.empty(0)
        self._journal = PartJournal(folder, stage.contract(FEATURES, features=contract))
        self._open: dict[int, _OpenPart] = {}
        self._made = {
            part_number(name) for name in folder.store.list_files(folder.table("features"))
        }
        self.quarantined: Counter[str] = Counter()
        """Videos of no use so far, by reason."""
        self.fallbacks: Counter[str] = Counter()
        """Sound videos since this object was made that PyAV had to decode, by why."""
        self._take_up()

    @property
    def num_videos(self) -> int:
        """All videos, over or not."""
        return int(self._plan.videos.num_rows)

    def todo(self) -> pa.Table:
        """Rows ``video_id``, ``uri``, ``part`` of the videos that are not over."""
        videos = self._plan.videos
        made = np.isin(videos["part"].to_numpy(), list(self._made))
        videos = videos.filter(pa.array(~made))
        over = pa.array([v for part in self._open.values() for v in part.over], pa.string())
        return videos.filter(pc.invert(pc.is_in(videos["video_id"], over)))

    def add(self, rows: pa.Table) -> int:
        """Take rows as the backbone gives them; return how many videos they finished."""
        finished = 0
        features = rows["features"]
        for position, row in enumerate(rows.drop_columns(["features"]).to_pylist()):
            part, video_id = row["part"], row["video_id"]
            if part in self._made or video_id in self._part(part).over:
                continue  # once more what came before, or a chunk of a video that is of no use
            video = self._part(part).unfinished.setdefault(video_id, _Unfinished())
            if row["is_end"]:
                names = ("video_id", "uri", "num_clips", "reason", "detail", "attempts")
                video.end = Outcome(**{name: row[name] for name in names})
            else:
                values = np.frombuffer(features[position].as_buffer(), self._contract.value_type)
                video.chunks[row["first_clip"]] = values.reshape(row["num_clips"], -1)
            if video.is_over:
                self._finish(part, video_id)
                finished += 1
        age = self._clock() - self._journaled
        if self._held_bytes > JOURNAL_BYTES or age >= self._journal_seconds:
            self.flush()
        return finished

    def flush(self) -> None:
        """Put what is finished of parts that are not whole into the journal."""
        for number, part in self._open.items():
            if part.outcomes:
                self._journal.keep(number, part.outcomes, part.features)
                part.outcomes, part.features = [], []
        self._held_bytes = 0
        self._journaled = self._clock()

    def close(self) -> None:
        """Delete the journal, once all parts are whole."""
        assert not self._open, f"parts {sorted(self._open)} are not whole"
        self._journal.clear()

    def _take_up(self) -> None:
        """Go on where earlier runs were interrupted."""
        made = sorted(self._made)
        with ThreadPoolExecutor(READERS) as pool:  # in an object store, a file is a round trip
            tables = pool.map(lambda number: read_part(self._folder, QUARANTINE, number), made)
        for number, table in zip(made, tables, strict=True):
            reasons = table["reason"].to_pylist()
            if any(QuarantineReason(reason).is_transient for reason in reasons):
                self._reopen(number)
            else:
                self.quarantined.update(reasons)
        for number in self._journal.parts:
            if number in self._made:
                self._journal.drop(number)
                continue
            outcomes = self._journal.outcomes(number)
            self._part(number).over = {outcome.video_id for outcome in outcomes}
            self.quarantined.update(o.reason for o in outcomes if not o.num_clips)
            self._write_if_whole(number)

    def _reopen(self, number: int) -> None:
        """Try once more what a passing trouble kept out of a part."""
        features = read_feature_file(self._folder.store, feature_part(self._folder, number))
        lengths = {video.video_id: len(video.values) for video in features}
        outcomes = {video_id: Outcome(video_id, "", length) for video_id, length in lengths.items()}
        for table in (DAMAGED, QUARANTINE):
            for row in read_part(self._folder, table, number).to_pylist():
                del row["stage"]
                if table is DAMAGED or not QuarantineReason(row["reason"]).is_transient:
                    length = lengths.get(row["video_id"], 0)
                    outcomes[row["video_id"]] = Outcome(num_clips=length, **row)
        self._journal.keep(number, list(outcomes.values()), features)
        self._folder.store.delete_file(feature_part(self._folder, number))
        self._made.remove(number)

    def _part(self, number: int) -> _OpenPart:
        return self._open.setdefault(number, _OpenPart(set()))

    def _finish(self, number: int, video_id: str) -> None:
        part = self._part(number)
        video = part.unfinished.pop(video_id)
        assert video.end is not None
        part.over.add(video_id)
        part.outcomes.append(video.end)
        if video.end.num_clips:
            values = np.concatenate([video.chunks[first] for first in sorted(video.chunks)])
            part.features.append(VideoFeatures(video_id, values, self._center_seconds(len(values))))
            self._held_bytes += values.nbytes
            if video.end.detail and not video.end.reason:
                self.fallbacks[video.end.detail] += 1
        else:
            self.quarantined[video.end.reason] += 1
        self._write_if_whole(number)

    def _write_if_whole(self, number: int) -> None:
        part = self._open[number]
        if len(part.over) < self._plan.sizes[number]:
            return
        outcomes = _by_name([*self._journal.outcomes(number), *part.outcomes])
        features = _by_name([*self._journal.features(number), *part.features])
        faulty = [outcome for outcome in outcomes if outcome.reason]
        # FEATURES last: its part is what says that the part is made.
        self._write_faults(QUARANTINE, number, [o for o in faulty if not o.num_clips])
        self._write_faults(DAMAGED, number, [o for o in faulty if o.num_clips])
        write_feature_part(
            self._folder,
            features,
            contract=self._stage.contract(FEATURES, features=self._contract),
            part=number,
        )
        self._journal.drop(number)
        self._made.add(number)
        self._held_bytes -= sum(video.values.nbytes for video in part.features)
        del self._open[number]

    def _write_faults(self, table: Table, number: int, outcomes: list[Outcome]) -> None:
        columns = {
            "video_id": [o.video_id for o in outcomes],
            "uri": [o.uri for o in outcomes],
            "reason": [o.reason for o in outcomes],
            "detail": [o.detail for o in outcomes],
            "stage": [self._stage.name] * len(outcomes),
            "attempts": [o.attempts for o in outcomes],
        }
        rows = pa.table(columns, schema=table.schema)
        write_table(self._folder, table, rows, contract=self._stage.contract(table), part=number)

    def _center_seconds(self, num_clips: int) -> NDArray[np.float64]:
        """The same for every video, so computed once."""
        known = len(self._centers)
        if num_clips > known:
            more = [self._grid.center_seconds(clip) for clip in range(known, num_clips)]
            self._centers = np.concatenate([self._centers, more])
        return self._centers[:num_clips]


def _by_name(videos: Sequence[_Named]) -> list[_Named]:
    """In order, each once: two drivers at a time may have finished the same."""
    return [video for _, video in sorted({video.video_id: video for video in videos}.items())]
