"""Finished videos of unfinished parts of FEATURES: what a killed extraction goes on with.

A fragment is a file of FEATURES with some videos of one part, and after it a JSON file that says
what became of these and other videos; a fragment without its JSON does not count. Names are unique,
so that no writer ever replaces what another one has finished.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import uuid4

from tfn_platform.feature_table import VideoFeatures, read_feature_file, write_feature_file
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
        store = self._folder.store
        return [
            Outcome(**fields)
            for name in self._names.get(part, [])
            for fields in store.read_json(self._file(f"{name}.json"))
        ]

    def features(self, part: int) -> list[VideoFeatures]:
        """The features of the videos in a part's fragments."""
        store = self._folder.store
        return [
            video
            for name in self._names.get(part, [])
            for video in read_feature_file(store, self._file(f"{name}.parquet"))
        ]

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
            self._folder.store.delete_file(self._file(f"{name}.json"))
            self._folder.store.delete_file(self._file(f"{name}.parquet"))

    def clear(self) -> None:
        """Delete whatever is left, fragments that were never finished included."""
        self._names.clear()
        for name in self._folder.store.list_files(self._folder.file(FOLDER)):
            self._folder.store.delete_file(self._file(name))

    def _file(self, name: str) -> str:
        return self._folder.file(f"{FOLDER}/{name}")


def _part_of(name: str) -> int:
    return int(name.removeprefix("part-").partition(".")[0])
