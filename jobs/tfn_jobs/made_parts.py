"""Parts of FEATURES with their QUARANTINE and DAMAGED: written whole, read back on a later run."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfn_jobs.part_journal import Outcome
from tfn_jobs.part_plan import PartPlan
from tfn_platform.errors import StageError, TableError
from tfn_platform.feature_footer import stored_videos
from tfn_platform.feature_table import (
    VideoFeatures,
    feature_part,
    read_feature_file,
    write_feature_part,
)
from tfn_platform.parquet import part_number, read_part, write_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import (
    DAMAGED,
    FEATURES,
    QUARANTINE,
    Contract,
    FeatureContract,
    Table,
    check_feature_contract,
)

NUM_THREADS = 16


class MadeParts:
    """The parts in a stage's folder. A part is there once its file of FEATURES is."""

    def __init__(
        self, stage: Stage, folder: StageFolder, *, contract: FeatureContract, plan: PartPlan
    ) -> None:
        """Say where they lie and what they have to hold."""
        self._stage = stage
        self._folder = folder
        self._contract = contract
        self._plan = plan

    def look(self) -> dict[int, Counter[str]]:
        """The parts that are there and hold what the plan says; why how many are of no use.

        A part of other videos does not count: VIDEOS were made again meanwhile. No more than the
        reasons is kept of a part: an object a video would be hundreds of bytes a video.

        Raises:
            StageError: a part was made in another way, such as by another decoder's version.
        """
        names = self._folder.store.list_files(self._folder.table(FEATURES.name.lower()))
        numbers = [n for n in map(part_number, names) if n < len(self._plan.sizes)]
        with ThreadPoolExecutor(NUM_THREADS) as pool:  # in an object store, a file is a round trip
            found = zip(numbers, pool.map(self._reasons, numbers), strict=True)
            return {number: reasons for number, reasons in found if reasons is not None}

    def exists(self, number: int) -> bool:
        """Whether a part is there now."""
        return self._folder.store.exists(feature_part(self._folder, number))

    def features(self, number: int) -> list[VideoFeatures]:
        """The features in a part."""
        return read_feature_file(self._folder.store, feature_part(self._folder, number))

    def sweep(self) -> None:
        """Delete what kills in the middle of writing have left; nobody may be writing any more."""
        store = self._folder.store
        if not store.is_local:
            return
        for table in (FEATURES, QUARANTINE, DAMAGED):
            for path in Path(store.path(self._folder.table(table.name.lower()))).glob(".*"):
                path.unlink(missing_ok=True)

    def write(
        self, number: int, outcomes: Sequence[Outcome], features: Sequence[VideoFeatures]
    ) -> None:
        """Write a part, in place of one that is there."""
        faulty = [outcome for outcome in outcomes if outcome.reason]
        # FEATURES last: its part is what says that the part is made.
        self._write_faults(QUARANTINE, number, [o for o in faulty if not o.num_clips])
        self._write_faults(DAMAGED, number, [o for o in faulty if o.num_clips])
        contract = self._stage.contract(FEATURES, features=self._contract)
        write_feature_part(self._folder, features, contract=contract, part=number)

    def outcomes(self, number: int) -> list[Outcome]:
        """What became of the videos in a part."""
        relative = feature_part(self._folder, number)
        store, source = self._folder.store, self._folder.store.uri(relative)
        with store.filesystem.open_input_file(store.path(relative)) as stream:
            parquet = pq.ParquetFile(stream)
            lengths = {v.video_id: v.num_clips for v in stored_videos(parquet, source=source)}
            made_by = Contract.from_schema(parquet.schema_arrow, source=source).features
        self._check_contract(made_by, source=source)
        outcomes = {video_id: Outcome(video_id, "", length) for video_id, length in lengths.items()}
        for table in (DAMAGED, QUARANTINE):
            for row in read_part(self._folder, table, number).to_pylist():
                del row["stage"]
                length = lengths.get(row["video_id"], 0)
                outcomes[row["video_id"]] = Outcome(num_clips=length, **row)
        return list(outcomes.values())

    def _reasons(self, number: int) -> Counter[str] | None:
        """Why videos of a part are of no use; None if it is a part of other videos."""
        outcomes = self.outcomes(number)
        if {o.video_id for o in outcomes} != self._plan.video_ids(number):
            return None
        return Counter(o.reason for o in outcomes if not o.num_clips)

    def _check_contract(self, made_by: FeatureContract | None, *, source: str) -> None:
        """Two ways must not meet in one table."""
        if made_by is None:
            raise TableError(f"{source}: FEATURES do not say how they were made")
        try:
            check_feature_contract(made_by, self._contract, source=source)
        except TableError as error:
            raise StageError(
                f"{error}; go on with the programs that the extraction was begun with, or take "
                f"{self._folder.uri} away to begin again"
            ) from error

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
