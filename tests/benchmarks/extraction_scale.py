"""What planning and bookkeeping of prepare and extract cost the driver, against the videos' number.

    python -m tests.benchmarks.extraction_scale --videos 5000 50000
    python -m tests.benchmarks.extraction_scale --videos 500000 --without-ray

Probing, decoding and the backbone are stubs that make a row, or a clip's feature, out of nothing;
all that the driver does is real: listing, planning, Ray Data's streaming, gathering, journals,
parts, index, hash. Memory includes what the allocators keep for later.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.driver_watch import Usage, watched
from tfn_jobs import extract as extract_job
from tfn_jobs import prepare as prepare_job
from tfn_jobs.backbones import build_network, pick_architecture, write_network_config
from tfn_jobs.data_location import DataLocation
from tfn_jobs.decode_actor import CHUNK_SCHEMA, DecodeSettings
from tfn_jobs.extract import ExtractJob, extract
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.prepare import PrepareJob, Row, prepare
from tfn_platform.checkpoint import save_torch
from tfn_platform.cluster import ClusterTotals, connection
from tfn_platform.map_table import ActorStage
from tfn_platform.spec import parse_spec
from tfn_platform.stages import Stage
from tfn_platform.store import Store

SIZES = (5_000, 50_000)
STEPS = ("prepare", "extract", "resume")
CLIPS_PER_VIDEO = 16
SECONDS_PER_VIDEO = CLIPS_PER_VIDEO / 2
ARCHITECTURE = "slowfast_tiny"
SPEC = {
    "name": "scale",
    "until": "extract",
    "dataset": {"format": "synthetic"},
    "backbone": {"architecture": ARCHITECTURE},
    "clips": {"frames_per_clip": 8, "short_side": 32},
}
ROWS_PER_CALL = 64
MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What one step cost the driver.

    Attributes:
        step: `prepare`, `extract`, or `resume`: an extraction that finds all parts made.
        num_videos: in the manifest.
        usage: without starting Ray.
    """

    step: str
    num_videos: int
    usage: Usage


class StubProbe:
    """Finds every video in order without looking at it."""

    def __init__(self, job: PrepareJob) -> None:
        """Take what the real one takes."""

    def __call__(self, row: Row) -> Row:
        """A row of PROBED."""
        return {
            **{name: row[name] for name in ("video_id", "uri", "subset")},
            **{"duration_seconds": SECONDS_PER_VIDEO, "frame_rate": 25.0},
            **{"width": 1, "height": 1, "size_bytes": 1, "fingerprint": "0123456789abcdef"},
            **{"reason": "", "detail": "", "attempts": 1},
        }


class StubDecoder:
    """Yields one chunk a video without looking at it."""

    def __init__(self, settings: DecodeSettings) -> None:
        """Take what the real one takes."""

    def __call__(self, videos: pa.Table) -> Iterator[pa.Table]:
        """A chunk and an end for each video."""
        count = 2 * len(videos)
        columns = {
            **dict.fromkeys(
                ("first_clip", "first_tick", "height", "width", "attempts"), [0] * count
            ),
            **dict.fromkeys(("reason", "detail", "frames"), [""] * count),
            "num_clips": [CLIPS_PER_VIDEO] * count,
            "is_end": [False, True] * len(videos),
        }
        rows = videos.take(np.repeat(np.arange(len(videos)), 2))
        for name, values in columns.items():
            rows = rows.append_column(name, pa.array(values, CHUNK_SCHEMA.field(name).type))
        yield rows.select(CHUNK_SCHEMA.names)


class StubBackbone:
    """Makes features of zeros."""

    def __init__(self, spec: PipelineSpec, **_: object) -> None:
        """Take what the real one takes."""
        length = pick_architecture(ARCHITECTURE).feature_dim
        self._features = np.zeros((CLIPS_PER_VIDEO, length), spec.extraction.feature_type).tobytes()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Features in place of frames."""
        features = [b"" if end else self._features for end in table["is_end"].to_pylist()]
        return table.drop_columns(["frames"]).append_column(
            "features", pa.array(features, pa.large_binary())
        )


def map_rows_here(rows: pa.Table, function: Callable[[Row], Row], **_: object) -> Iterator[Row]:
    """What `map_rows` does, without Ray."""
    for batch in rows.to_batches(max_chunksize=ROWS_PER_CALL):
        yield from map(function, batch.to_pylist())


def stream_here(
    tables: Sequence[pa.Table], stages: Sequence[ActorStage], **_: object
) -> Generator[pa.Table, None, None]:
    """What `stream_through` does, without Ray."""
    decoder, backbone = (stage.actor(**stage.arguments) for stage in stages)
    for table in tables:
        yield from map(backbone, decoder(table))


def measure(step: str, num_videos: int, folder: Path, *, with_ray: bool) -> Cost:
    """Run one step on that many videos that do not exist."""
    prepare_job._Probe = StubProbe
    extract_job.DecodeActor, extract_job.BackboneActor = StubDecoder, StubBackbone
    if not with_ray:
        prepare_job.map_rows, extract_job.stream_through = map_rows_here, stream_here
        extract_job.cluster_totals = lambda: ClusterTotals(4, 0, 4)
        extract_job.require_resources = lambda *_, **__: None
    store, stage = Store.open(str(folder)), Stage("prepare", {})
    if step == "prepare":
        location = DataLocation((_manifest(folder, num_videos),))
        work = partial(_prepare, PrepareJob(location, stage, stage.folder(store)))
    else:
        if not stage.folder(store).is_done:
            stage.commit(store, seconds=0)
        work = partial(extract, _extract_job(store, stage))
    with connection(None) if with_ray else nullcontext(), watched() as usage:
        made = work()
    assert made["videos"] == num_videos, made
    return Cost(step, num_videos, usage)


def _prepare(job: PrepareJob) -> dict[str, int]:
    job.location.fingerprint()  # as the pipeline does, to see whether the data set has changed
    return prepare(job)


def _manifest(folder: Path, num_videos: int) -> str:
    names = [f"video_{number:07d}" for number in range(num_videos)]
    uris = [f"{folder}/videos/{name}.mp4" for name in names]
    pq.write_table(pa.table({"video_id": names, "uri": uris}), folder / "manifest.parquet")
    return f"{folder}/manifest.parquet"


def _extract_job(store: Store, first: Stage) -> ExtractJob:
    finetune = Stage("finetune", {})
    stage = Stage("extract", {}, (first, finetune))
    backbone, config = finetune.folder(store), pick_architecture(ARCHITECTURE)
    write_network_config(backbone, config)
    torch.manual_seed(0)
    save_torch(store, backbone.weights, build_network(config).state_dict())
    spec = parse_spec(PipelineSpec, SPEC, source="benchmark")
    return ExtractJob(spec, stage, first.folder(store), backbone, stage.folder(store), 1.0)


def measure_all(num_videos: int, *, with_ray: bool) -> list[Cost]:
    """Each step in a process of its own, so that none sees another one's memory."""
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            command = [sys.executable, "-m", "tests.benchmarks.extraction_scale", "--step", step]
            command += ["--videos", str(num_videos), "--folder", folder]
            command += [] if with_ray else ["--without-ray"]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            made = json.loads(printed.splitlines()[-1])
            costs.append(Cost(**{**made, "usage": Usage(**made["usage"])}))
    return costs


def _table(costs: list[Cost]) -> Table:
    """One row a step and size; bytes a video are those beyond the size above it."""
    columns = ("step", "videos", "CPU s", "ms a video", "wall s", "own MiB", "own bytes a further")
    table = Table(*columns, "shared MiB", "owner's CPU s", "owner's MiB")
    before: dict[str, Cost] = {}
    for cost in sorted(costs, key=lambda cost: (STEPS.index(cost.step), cost.num_videos)):
        usage, smaller = cost.usage, before.get(cost.step)
        further = ""
        if smaller is not None and smaller.num_videos < cost.num_videos:
            more = cost.num_videos - smaller.num_videos
            further = f"{(usage.own_bytes - smaller.usage.own_bytes) / more:.0f}"
        before[cost.step] = cost
        table.add_row(
            cost.step,
            f"{cost.num_videos:,}",
            f"{usage.cpu_seconds:.1f}",
            f"{1000 * usage.cpu_seconds / cost.num_videos:.2f}",
            f"{usage.wall_seconds:.0f}",
            f"{usage.own_bytes / MIB:.0f}",
            further,
            f"{usage.shared_bytes / MIB:.0f}",
            f"{usage.owner_cpu_seconds:.1f}",
            f"{usage.owner_bytes / MIB:.0f}",
        )
    return table


def main() -> None:
    """Print one row a step and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--without-ray", action="store_true", help="make all rows in the driver")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON, too")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        count, with_ray = given.videos[0], not given.without_ray
        print(json.dumps(asdict(measure(given.step, count, given.folder, with_ray=with_ray))))
        return
    with_ray = not given.without_ray
    costs = [cost for count in given.videos for cost in measure_all(count, with_ray=with_ray)]
    Console(width=120).print(_table(costs))
    if given.out:
        given.out.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
