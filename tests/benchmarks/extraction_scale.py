"""What planning and bookkeeping of an extraction cost the driver, against the number of videos.

    python -m tests.benchmarks.extraction_scale --videos 5000 50000

Decoding and the backbone are stubs that make a clip's feature out of nothing; all that the driver
does is real: planning, Ray Data's streaming, gathering, journal, parts, index, hash.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table

from tfn_jobs import extract as extract_job
from tfn_jobs.backbones import build_network, pick_architecture, write_network_config
from tfn_jobs.decode_actor import CHUNK_SCHEMA, DecodeSettings
from tfn_jobs.extract import ExtractJob, extract
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_platform.checkpoint import save_torch
from tfn_platform.cluster import connection
from tfn_platform.parquet import write_table
from tfn_platform.spec import parse_spec
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tables import QUARANTINE, VIDEOS

SIZES = (5_000, 50_000)
CLIPS_PER_VIDEO = 16
ARCHITECTURE = "slowfast_tiny"
SPEC = {
    "name": "scale",
    "until": "extract",
    "dataset": {"format": "synthetic"},
    "backbone": {"architecture": ARCHITECTURE},
    "clips": {"frames_per_clip": 8, "short_side": 32},
}


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        num_videos: in the manifest.
        cpu_seconds: of the driver's process, all its threads, without starting Ray.
        wall_seconds: of the same.
        extra_mib: peak memory of the driver beyond what it held when Ray had started.
        num_parts: of FEATURES.
    """

    num_videos: int
    cpu_seconds: float
    wall_seconds: float
    extra_mib: float
    num_parts: int


class StubDecoder:
    """Yields one chunk a video without looking at it."""

    def __init__(self, settings: DecodeSettings) -> None:
        """Take what the real one takes."""

    def __call__(self, videos: pa.Table) -> Iterator[pa.Table]:
        """A chunk and an end for each video."""
        for video in videos.to_pylist():
            row = {
                **video,
                **dict.fromkeys(("first_clip", "first_tick", "height", "width", "attempts"), 0),
                "num_clips": CLIPS_PER_VIDEO,
                "reason": "",
                "detail": "",
                "frames": b"",
            }
            rows = [{**row, "is_end": False}, {**row, "is_end": True}]
            yield pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)


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


def measure(num_videos: int) -> Cost:
    """Run one extraction of that many videos that do not exist."""
    extract_job.DecodeActor, extract_job.BackboneActor = StubDecoder, StubBackbone
    with tempfile.TemporaryDirectory() as folder, connection(None):
        job = _job(Store.open(folder), num_videos)
        before = _peak_mib()
        cpu, wall = time.process_time(), time.monotonic()
        figures = extract(job)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        assert figures["videos"] == num_videos, figures
        parts = list((Path(folder) / job.folder.table("features")).glob("part-*"))
        return Cost(num_videos, cpu, wall, _peak_mib() - before, len(parts))


def _job(store: Store, num_videos: int) -> ExtractJob:
    prepare, finetune = Stage("prepare", {}), Stage("finetune", {})
    stage = Stage("extract", {}, (prepare, finetune))
    prepared, backbone = prepare.folder(store), finetune.folder(store)
    names = [f"video_{number:07d}" for number in range(num_videos)]
    texts = {name: [""] * num_videos for name in ("subset", "fingerprint")}
    numbers = dict.fromkeys(("frame_rate", "width", "height", "size_bytes"), [1] * num_videos)
    columns = {
        "video_id": names,
        "uri": [f"s3://bucket/videos/{name}.mp4" for name in names],
        "duration_seconds": [CLIPS_PER_VIDEO / 2] * num_videos,
        **texts,
        **numbers,
    }
    videos = pa.table({name: columns[name] for name in VIDEOS.schema.names}).cast(VIDEOS.schema)
    write_table(prepared, VIDEOS, videos, contract=prepare.contract(VIDEOS))
    unusable = QUARANTINE.schema.empty_table()
    write_table(prepared, QUARANTINE, unusable, contract=prepare.contract(QUARANTINE))
    prepare.commit(store, seconds=0)
    config = pick_architecture(ARCHITECTURE)
    write_network_config(backbone, config)
    torch.manual_seed(0)
    save_torch(store, backbone.weights, build_network(config).state_dict())
    finetune.commit(store, seconds=0)
    spec = parse_spec(PipelineSpec, SPEC, source="benchmark")
    return ExtractJob(spec, stage, prepared, backbone, stage.folder(store), 1.0)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_apart(num_videos: int) -> Cost:
    """The same in a process of its own, so that no run sees another one's memory."""
    command = [sys.executable, "-m", "tests.benchmarks.extraction_scale", "--one", str(num_videos)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Cost(**json.loads(printed.splitlines()[-1]))


def main() -> None:
    """Print one row a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--out", type=Path, help="write the figures here as JSON, too")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(measure(arguments.one))))
        return
    table = Table("videos", "driver CPU s", "ms a video", "wall s", "extra MiB", "parts")
    costs = [measure_apart(count) for count in arguments.videos]
    for cost in costs:
        table.add_row(
            f"{cost.num_videos:,}",
            f"{cost.cpu_seconds:.1f}",
            f"{1000 * cost.cpu_seconds / cost.num_videos:.2f}",
            f"{cost.wall_seconds:.0f}",
            f"{cost.extra_mib:.0f}",
            str(cost.num_parts),
        )
    Console().print(table)
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
