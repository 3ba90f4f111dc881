"""Features against one .npy file a video, side by side: `python -m tests.benchmarks.features`.

Prints a table; `--out` writes the figures as JSON too. The S3 server runs on this machine and
waits `--latency-ms` before each answer, as one far away does.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.feature_compression import Compression, compression_figures
from tests.benchmarks.feature_reading import Figure, Size, fill_bucket, local_figures, s3_figures
from tests.s3_server import free_port, s3_variables, wait_for_port


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.features", description=__doc__
    )
    parser.add_argument("--videos", type=int, default=256)
    parser.add_argument("--clips", type=int, default=300, help="a video")
    parser.add_argument("--feature-dim", type=int, default=2304)
    parser.add_argument("--value-type", choices=("float16", "float32"), default="float32")
    parser.add_argument("--latency-ms", type=float, default=10.0, help="of the S3 server")
    parser.add_argument("--repeats", type=int, default=3, help="of each side; medians are shown")
    parser.add_argument("--out", help="JSON file to write")
    given = parser.parse_args()
    size = Size(given.videos, given.clips, given.feature_dim, given.value_type)
    print(f"{size}, {given.latency_ms:g} ms a request, CPU seconds in brackets")
    print(_line("", ".npy", "", "ours", "", "ratio", "goal"))
    figures = []
    for figure in measure(size, latency_ms=given.latency_ms, repeats=given.repeats):
        print(figure_line(figure), flush=True)
        figures.append(dataclasses.asdict(figure) | {"ratio": figure.ratio})
    compressions = list(compression_figures(size, repeats=given.repeats))
    for compression in compressions:
        print(compression_line(compression), flush=True)
    if given.out:
        content = {
            "size": dataclasses.asdict(size),
            "figures": figures,
            "compression": [dataclasses.asdict(compression) for compression in compressions],
        }
        Path(given.out).write_text(json.dumps(content, indent=2) + "\n")


def measure(size: Size, *, latency_ms: float, repeats: int) -> Iterator[Figure]:
    """All figures of reading, in folders and a server that are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tfn-features-") as name:
        bucket = Path(name) / "bucket"
        bucket.mkdir()
        fill_bucket(bucket, size)
        yield from local_figures(bucket, repeats=repeats)
        with s3_server(Path(name), latency_ms=latency_ms):
            yield from s3_figures("bucket", Path(name) / "cache", repeats=repeats)


@contextmanager
def s3_server(folder: Path, *, latency_ms: float) -> Iterator[None]:
    """A server whose buckets are the folders in `folder`; this process is pointed at it."""
    port = free_port()
    command = [sys.executable, "-m", "tests.range_server", str(folder), str(port), str(latency_ms)]
    process = subprocess.Popen(command)
    before = dict(os.environ)
    try:
        wait_for_port(port, process)
        os.environ.update(s3_variables(f"http://127.0.0.1:{port}"))
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        process.kill()
        process.wait()


def figure_line(figure: Figure) -> str:
    """One row of the table, and how the other side reads below it."""
    met = "" if figure.ratio >= figure.goal else "  below the goal"
    return (
        _line(
            figure.name,
            f"{figure.npy_wall:.4g} s",
            f"({figure.npy_cpu:.3g})",
            f"{figure.our_wall:.4g} s",
            f"({figure.our_cpu:.3g})",
            f"{figure.ratio:.2f}x",
            f"{figure.goal:g}x",
        )
        + f"{met}\n    .npy: {figure.note}"
    )


def compression_line(row: Compression) -> str:
    """One row of the sizes."""
    return (
        f"{row.name:<40}{row.share:>8.1%} of the values' bytes, a video read in "
        f"{1e3 * row.read_seconds:.2f} ms, written in {1e3 * row.write_seconds:.1f} ms"
    )


def _line(name: str, *cells: str) -> str:
    return f"{name:<52}" + "".join(f"{cell:>12}" for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
