"""FEATURES as they come in: chunks to videos, videos to parts, each written once it is whole.

What is finished of other parts goes into a journal every now and then. Rows may come in any order,
and twice; a part's bytes depend on neither, nor on how often the extraction was killed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfn_jobs.made_parts import NUM_THREADS, MadeParts
from tfn_jobs.part_journal import Outcome, PartJournal, best_outcomes
from tfn_jobs.part_plan import PartPlan
from tfn_platform.feature_table import VideoFeatures
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.sampling_grid import SamplingGrid
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import FEATURES, FeatureContract

JOURNAL_BYTES = 256 << 20


@dataclass
class _Unfinished:
    """A video some of whose rows have come."""

    chunks: dict[int, NDArray[np.generic]] = field(default_factory=dict)
    end: Outcome | None = None

    @property
    def is_over(self) -> bool:
        """Whether its end has come, and chunks that are all its clips, each once."""
        if self.end is None:
            return False
        next_clip = 0
        for first in sorted(self.chunks):
            if first != next_clip:
                return not self.end.num_clips
            next_clip += len(self.chunks[first])
        return not self.end.num_clips or next_clip == self.end.num_clips


@dataclass
class _OpenPart:
    """A part that is not whole yet."""

    over: set[str]
    """Videos that need no more rows in this run, whether journaled or in `outcomes`."""
    is_reopened: bool = False
    """Whether it is there already, but for videos that are worth another attempt."""
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
        self._parts = MadeParts(stage, folder, contract=contract, plan=plan)
        self._journal = PartJournal(folder, stage.contract(FEATURES, features=contract))
        self._open: dict[int, _OpenPart] = {}
        self._made: set[int] = set()
        self._earlier_attempts: dict[str, int] = {}
        self.quarantined: Counter[str] = Counter()
        """Videos of no use so far, by reason; without those that are to be tried once more."""
        self.fallbacks: Counter[str] = Counter()
        """Sound videos since this object was made that PyAV had to decode, by why."""
        self._take_up()

    @property
    def num_videos(self) -> int:
        """All videos, over or not."""
        return int(self._plan.videos.num_rows)

    @property
    def video_ids(self) -> pa.ChunkedArray:
        """The names of all videos."""
        return self._plan.videos["video_id"]

    def todo(self) -> pa.Table:
        """Rows ``video_id``, ``uri``, ``part`` of the videos that are not over."""
        videos = self._plan.videos
        if not self._made and not self._open:
            return videos  # without a copy
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
        finished = [(number, part) for number, part in self._open.items() if part.outcomes]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            kept = [
                pool.submit(self._journal.keep, number, part.outcomes, part.features)
                for number, part in finished
            ]
            for fragment, (_, part) in zip(kept, finished, strict=True):
                fragment.result()
                part.outcomes, part.features = [], []
        self._held_bytes = 0
        self._journaled = self._clock()

    def forget_unfinished(self) -> None:
        """Drop what has come of videos that will be done again from their beginning."""
        for part in self._open.values():
            part.unfinished.clear()

    def close(self) -> None:
        """Delete the journal and what kills have left, once all parts are whole."""
        assert not self._open, f"parts {sorted(self._open)} are not whole"
        self._journal.clear()
        self._parts.sweep()

    def _take_up(self) -> None:
        """Go on where earlier runs were interrupted; what was transient is tried once more."""
        made = self._parts.look()
        reopened = {n for n, reasons in made.items() if _has_transient(reasons)}
        self._made = made.keys() - reopened
        for number in self._made:
            self.quarantined.update(made[number])
        for number in sorted({*reopened, *self._journal.parts}):
            if number in self._made or number >= len(self._plan.sizes):
                self._journal.drop(number)
                continue
            part = self._open[number] = _OpenPart(set(), is_reopened=number in reopened)
            for video_id, outcome in self._outcomes(number, part).items():
                if outcome.is_transient:
                    self._earlier_attempts[video_id] = outcome.attempts
                    continue
                part.over.add(video_id)
                if not outcome.num_clips:
                    self.quarantined[outcome.reason] += 1
            self._write_if_whole(number)

    def _part(self, number: int) -> _OpenPart:
        return self._open.setdefault(number, _OpenPart(set()))

    def _finish(self, number: int, video_id: str) -> None:
        part = self._part(number)
        video = part.unfinished.pop(video_id)
        assert video.end is not None
        attempts = video.end.attempts + self._earlier_attempts.get(video_id, 0)
        outcome = replace(video.end, attempts=attempts)
        if outcome.num_clips:
            values = np.concatenate([video.chunks[first] for first in sorted(video.chunks)])
            if problem := _not_finite(values):
                reason = str(QuarantineReason.FEATURES_NOT_FINITE)
                outcome = replace(outcome, num_clips=0, reason=reason, detail=problem)
            else:
                centers = self._center_seconds(len(values))
                part.features.append(VideoFeatures(video_id, values, centers))
                self._held_bytes += values.nbytes
        part.over.add(video_id)
        part.outcomes.append(outcome)
        if not outcome.num_clips:
            self.quarantined[outcome.reason] += 1
        elif outcome.detail and not outcome.reason:
            self.fallbacks[outcome.detail] += 1
        self._write_if_whole(number)

    def _write_if_whole(self, number: int) -> None:
        part = self._open[number]
        if len(part.over) < self._plan.sizes[number]:
            return
        earlier = self._parts.features(number) if part.is_reopened else []
        features = {
            video.video_id: video
            for video in [*earlier, *self._journal.features(number), *part.features]
        }
        outcomes = self._outcomes(number, part)
        missing = {v for v, o in outcomes.items() if o.num_clips and v not in features}
        missing |= self._plan.video_ids(number) - outcomes.keys()
        if missing:
            self._leave_to_other_driver(number, missing)
            return
        used = [features[v] for v, outcome in sorted(outcomes.items()) if outcome.num_clips]
        self._parts.write(number, [outcome for _, outcome in sorted(outcomes.items())], used)
        self._journal.drop(number)
        self._made.add(number)
        self._held_bytes -= sum(video.values.nbytes for video in part.features)
        del self._open[number]

    def _outcomes(self, number: int, part: _OpenPart) -> dict[str, Outcome]:
        """What became of a part's videos, in earlier runs and in this one."""
        earlier = self._parts.outcomes(number) if part.is_reopened else []
        merged = best_outcomes([*earlier, *self._journal.outcomes(number), *part.outcomes])
        return {v: merged[v] for v in self._plan.video_ids(number) & merged.keys()}

    def _leave_to_other_driver(self, number: int, missing: set[str]) -> None:
        """Fragments are gone: another driver has made the part, or is about to lose it again."""
        part = self._open[number]
        if not part.is_reopened and self._parts.exists(number):
            self._made.add(number)
            del self._open[number]
        else:
            part.over -= missing

    def _center_seconds(self, num_clips: int) -> NDArray[np.float64]:
        """The same for every video, so computed once."""
        known = len(self._centers)
        if num_clips > known:
            more = [self._grid.center_seconds(clip) for clip in range(known, num_clips)]
            self._centers = np.concatenate([self._centers, more])
        return self._centers[:num_clips]


def _has_transient(reasons: Iterable[str]) -> bool:
    return any(QuarantineReason(reason).is_transient for reason in reasons)


def _not_finite(values: NDArray[np.generic]) -> str:
    """What is wrong with features that cannot be stored; "" for nothing."""
    finite = np.isfinite(values)
    if finite.all():
        return ""
    problem = f"{finite.size - np.count_nonzero(finite)} of {finite.size} values are not finite"
    if values.dtype == np.float16:
        problem += " in float16, which ends at 65504: extraction.feature_type: float32 may do"
    return problem
