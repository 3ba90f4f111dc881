"""Finished videos of unfinished parts of FEATURES: what a killed extraction goes on with.

A fragment is a file of FEATURES with some videos of one part, and after it a JSON file that says
what became of these and other videos; a fragment without its JSON does not count. Names are unique,
so that no writer ever replaces what another one has finished.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from uuid import uuid4

from tfn_platform.feature_table import VideoFeatures, read_feature_file, write_feature_file
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.store import StageFolder
from tfn_platform.tables import Contract

FOLDER = "progress"


@dataclass(frozen=True)
class Outcome:
    """What became of a video.

    Attributes:
        video_id: its name.
        uri: its file.
        num_clips: clips that have features; 0 for a video that could not be used.
        reason: what is wrong with it; "" for nothing. With clips, it was used as far as it goes.
        detail: the same for a reader.
        attempts: how often it was tried.
    """

    video_id: str
    uri: str
    num_clips: int
    reason: str = ""
    detail: str = ""
    attempts: int = 1

    @property
    def is_transient(self) -> bool:
        """Whether it was kept out by what need not be its fault: another run tries it again."""
        return not self.num_clips and QuarantineReason(self.reason).is_transient


def best_outcomes(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Each video's best: one with features, else a lasting fault, else the last of its attempts.

    There may be several where it was tried in several runs, or by two drivers at a time.
    """
    best: dict[str, Outcome] = {}
    for outcome in outcomes:
        known = best.setdefault(outcome.video_id, outcome)
        if _rank(outcome) > _rank(known):
            best[outcome.video_id] = outcome
    return best


def _rank(outcome: Outcome) -> tuple[bool, bool, int]:
    return outcome.num_clips > 0, not outcome.is_transient, outcome.attempts


class PartJournal:
    """The fragments in a stage's folder."""

    def __init__(self, folder: StageFolder, contract: Contract) -> None:
        """Look at what earlier runs left."""
        self._folder = folder
        self._contract = contract
        self._names: dict[int, list[str]] = {}
        for name in folder.store.list_files(folder.file(FOLDER)):
            if name.endswith(".json"):
                self._names.setdefault(_part_of(name), []).append(name.removesuffix(".json"))

    @property
    def parts(self) -> list[int]:
        """The parts that have fragments."""
        return sorted(self._names)

    def outcomes(self, part: int) -> list[Outcome]:
        """What became of the videos in a part's fragments."""
        outcomes: list[Outcome] = []
        for name in self._names.get(part, []):
            with suppress(FileNotFoundError):  # another driver has made the part meanwhile
                record = self._folder.store.read_json(self._file(f"{name}.json"))
                outcomes += [Outcome(**fields) for fields in record]
        return outcomes

    def features(self, part: int) -> list[VideoFeatures]:
        """The features of the videos in a part's fragments."""
        features: list[VideoFeatures] = []
        for name in self._names.get(part, []):
            with suppress(FileNotFoundError):
                features += read_feature_file(self._folder.store, self._file(f"{name}.parquet"))
        return features

    def keep(
        self, part: int, outcomes: Sequence[Outcome], features: Sequence[VideoFeatures]
    ) -> None:
        """Write one more fragment."""
        name, store = f"part-{part:05d}.{uuid4().hex}", self._folder.store
        write_feature_file(store, self._file(f"{name}.parquet"), features, contract=self._contract)
        store.write_json(self._file(f"{name}.json"), [asdict(outcome) for outcome in outcomes])
        self._names.setdefault(part, []).append(name)

    def drop(self, part: int) -> None:
        """Delete a part's fragments, once the part itself is written."""
        for name in self._names.pop(part, []):
            # The JSON first: a fragment is never half there.
            self._delete(f"{name}.json")
            self._delete(f"{name}.parquet")

    def clear(self) -> None:
        """Delete whatever is left, fragments that were never finished included."""
        self._names.clear()
        store = self._folder.store
        with suppress(FileNotFoundError):
            store.filesystem.delete_dir(store.path(self._folder.file(FOLDER)))

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._folder.store.delete_file(self._file(name))

    def _file(self, name: str) -> str:
        return self._folder.file(f"{FOLDER}/{name}")


def _part_of(name: str) -> int:
    return int(name.removeprefix("part-").partition(".")[0])
