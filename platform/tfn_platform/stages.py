"""Content-addressed stages: what is made is never made again, and a plan says what will be.

The key of a stage is the hash of its name, its settings, the versions of its code and of the
tables, and the keys of its inputs. A stage whose folder under that key is committed is done,
whoever made it and for whichever pipeline.
"""

import datetime
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tfn_platform.spec import spec_hash
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import SCHEMA_VERSION, Contract, FeatureContract, Table

NOTHING = "(nothing)"


@dataclass(frozen=True)
class Stage:
    """One unit of work with one folder of results.

    Attributes:
        name: such as ``extract`` or ``bmn/d32``.
        settings: everything in the spec that the results depend on, as JSON values.
        inputs: the stages whose results it reads.
        version: raised by hand when the code begins to make other results from equal inputs.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: tuple["Stage", ...] = ()
    version: int = 1
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the key."""
        inputs = [i.key for i in self.inputs]
        content = [self.name, self.version, SCHEMA_VERSION, dict(self.settings), inputs]
        object.__setattr__(self, "key", spec_hash(content))

    def folder(self, store: Store) -> StageFolder:
        """Where the results lie."""
        return store.stage(self.name, self.key)

    def contract(self, table: Table, *, features: FeatureContract | None = None) -> Contract:
        """The contract of a table that this stage writes."""
        return Contract(table.name, self.key, tuple(i.key for i in self.inputs), features)

    def commit(self, store: Store, *, seconds: float, **figures: Any) -> None:
        """Write down that everything in the folder is there and final."""
        self.folder(store).commit(
            {
                "stage": self.name,
                "key": self.key,
                "version": self.version,
                "settings": dict(self.settings),
                "inputs": {i.name: i.key for i in self.inputs},
                "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "seconds": round(seconds, 1),
                "figures": figures,
            }
        )

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a later plan compares with to say why the stage runs again."""
        return {
            "key": self.key,
            "version": self.version,
            "tables": SCHEMA_VERSION,
            "settings": dict(self.settings),
            "inputs": {i.name: i.key for i in self.inputs},
        }


@dataclass(frozen=True)
class PlannedStage:
    """A stage, whether it is already made, and why not."""

    stage: Stage
    is_done: bool
    reason: str


def plan(stages: Iterable[Stage], store: Store, *, pipeline: str) -> list[PlannedStage]:
    """Say of each stage whether it is done and, if not, what makes it run."""
    stages = list(stages)
    record = store.pipeline_record(pipeline)
    previous = store.read_json(record) if store.exists(record) else {}
    planned = []
    for stage in stages:
        is_done = stage.folder(store).is_done
        reason = "already made" if is_done else _why_it_runs(stage, previous.get(stage.name))
        planned.append(PlannedStage(stage, is_done, reason))
    return planned


def remember(stages: Iterable[Stage], store: Store, *, pipeline: str) -> None:
    """Write down what the pipeline is made of, for the next plan to compare with."""
    records = {stage.name: stage.record for stage in stages}
    store.write_json(store.pipeline_record(pipeline), records)


def run_stage(stage: Stage, store: Store, make: Callable[[StageFolder], Mapping[str, Any]]) -> bool:
    """Make a stage unless it is made; commit it with the figures `make` returns. True if it ran."""
    folder = stage.folder(store)
    if folder.is_done:
        return False
    started = time.monotonic()
    figures = make(folder)
    stage.commit(store, seconds=time.monotonic() - started, **figures)
    return True


def _why_it_runs(stage: Stage, previous: Mapping[str, Any] | None) -> str:
    if previous is None:
        return "never made"
    if previous["key"] == stage.key:
        return "not finished"
    reasons = []
    if previous["version"] != stage.version:
        reasons.append(f"its code changed (version {previous['version']} → {stage.version})")
    tables = previous.get("tables", 1)
    if tables != SCHEMA_VERSION:
        reasons.append(f"the tables' format changed (version {tables} → {SCHEMA_VERSION})")
    # Through JSON, as the record went: a tuple is a list there.
    settings = json.loads(json.dumps(dict(stage.settings)))
    differences = _differences(previous["settings"], settings, "")
    if differences:
        reasons.append(f"settings changed {', '.join(differences)}")
    now = {i.name: i.key for i in stage.inputs}
    before = previous["inputs"]
    changed = [name for name in now if before.get(name) != now[name]]
    gone = [name for name in before if name not in now]
    if changed:
        reasons.append(f"new input: {', '.join(changed)}")
    if gone:
        reasons.append(f"input gone: {', '.join(gone)}")
    return "; ".join(reasons) or "its order of inputs changed"


def _differences(before: Any, now: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            text
            for name in sorted({*before, *now})
            for text in _differences(
                before.get(name, NOTHING),
                now.get(name, NOTHING),
                f"{path}.{name}" if path else name,
            )
        ]
    return [] if before == now else [f"{path}: {before} → {now}"]
