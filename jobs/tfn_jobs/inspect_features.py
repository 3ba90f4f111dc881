"""Job: look at a FEATURES folder: how it was made, what it holds, and one video as a picture."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from tfn_jobs.console import CONSOLE, progress_bar, say
from tfn_jobs.figure_style import (
    ACCENT,
    FULL_WIDTH_INCHES,
    MUTED,
    new_figure,
    shorten,
    styled,
    tidy,
)
from tfn_platform.errors import SpecError, TableError
from tfn_platform.feature_index import FeatureReader, features_hash
from tfn_platform.store import StageFolder, Store

MAX_LISTED = 5
PICTURE_DPI = 120
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
# Half a millisecond: the stored times are exact fractions rounded once.
CENTER_TOLERANCE_SECONDS = 5e-4
# More columns than this cannot be told apart; neighbouring channels are then averaged.
MAX_DRAWN_CHANNELS = 512


@dataclass(frozen=True)
class FeatureStatistics:
    """What some videos' values are like.

    Attributes:
        num_videos: how many videos.
        num_clips: of all of them.
        shortest: clips of the shortest one.
        longest: clips of the longest one.
        minimum: of all finite values.
        mean: of all finite values.
        standard_deviation: of all finite values.
        maximum: of all finite values.
        share_of_zeros: of all values.
        not_finite: how many values.
        off_grid: videos whose times are not those that the contract says, with the largest
            difference in seconds.
        constant: videos all of whose clips are the same, which have at least two.
        damaged: videos whose values are not those that were written.
    """

    num_videos: int
    num_clips: int
    shortest: int
    longest: int
    minimum: float
    mean: float
    standard_deviation: float
    maximum: float
    share_of_zeros: float
    not_finite: int
    off_grid: dict[str, float]
    constant: list[str]
    damaged: list[str]


def inspect_features(uri: str, *, video_id: str | None = None, picture: Path | None = None) -> None:
    """Print what a folder of features holds; draw one video.

    Args:
        uri: the folder ``…/stages/<name>/<key>`` of a stage that made features.
        video_id: look at this video alone.
        picture: where to draw `video_id` (the first video where none is given): .png, .svg, .pdf.

    Raises:
        TableError: there are no finished features, or none of this video.
        SpecError: the picture cannot be written there.
    """
    if picture is not None:
        _check_picture(picture)
    reader = FeatureReader(open_stage_folder(uri))
    if video_id is not None and video_id not in reader.video_ids:
        raise TableError(
            f"{uri}: no features of video {video_id!r}; there are {len(reader.video_ids)} videos, "
            f"such as {', '.join(reader.video_ids[:MAX_LISTED])}"
        )
    chosen = reader.video_ids if video_id is None else (video_id,)
    _print_contract(reader)
    _print_statistics(measure_features(reader, chosen), reader)
    if picture is not None:
        figure = feature_figure(reader, chosen[0])
        figure.savefig(picture, dpi=PICTURE_DPI)
        say(f"drew {chosen[0]} to {picture}")


def open_stage_folder(uri: str) -> StageFolder:
    """The stage folder at an address that ends with ``stages/<name>/<key>``.

    Raises:
        TableError: the address does not end so.
    """
    found = re.fullmatch(r"(?P<root>.*/)?stages/(?P<name>.+)/(?P<key>[^/]+)", uri.rstrip("/"))
    if found is None:
        raise TableError(
            f"{uri}: must be the folder of a stage, such as outputs/stages/extract/0123abcd"
        )
    root = "." if found["root"] is None else found["root"].rstrip("/") or "/"
    return Store.open(root).stage(found["name"], found["key"])


def _check_picture(picture: Path) -> None:
    """Refuse, before anything is read, a picture that could not be written in the end."""
    if picture.suffix.lower() not in PICTURE_SUFFIXES:
        raise SpecError(
            f"{picture}: a picture must end with {', '.join(PICTURE_SUFFIXES)}, got "
            f"{picture.suffix or 'no ending'!r}"
        )
    if not picture.parent.is_dir():
        raise SpecError(f"{picture}: there is no folder {picture.parent} to draw it into")


def measure_features(reader: FeatureReader, video_ids: Sequence[str]) -> FeatureStatistics:
    """Read the videos, one at a time in the order of the files, and sum them up in float64."""
    count = zeros = not_finite = 0
    total = squares = 0.0
    low, high = np.inf, -np.inf
    lengths, off_grid, constant, damaged = [], {}, [], []
    for name, values, centers in _read_each(reader, video_ids):
        finite = values[np.isfinite(values)].astype(np.float64)
        lengths.append(len(values))
        not_finite += values.size - finite.size
        count += finite.size
        zeros += int(np.count_nonzero(values == 0))
        total += float(finite.sum())
        squares += float(np.square(finite).sum())
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        error = float(np.abs(centers - reader.contract.center_seconds(len(centers))).max())
        if error > CENTER_TOLERANCE_SECONDS:
            off_grid[name] = error
        if len(values) > 1 and (values == values[0]).all():
            constant.append(name)
        if not reader.holds(name, values, centers):
            damaged.append(name)
    mean = total / max(count, 1)
    return FeatureStatistics(
        num_videos=len(lengths),
        num_clips=sum(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        minimum=low,
        mean=mean,
        standard_deviation=max(squares / max(count, 1) - mean**2, 0.0) ** 0.5,
        maximum=high,
        share_of_zeros=zeros / (sum(lengths) * reader.contract.feature_dim),
        not_finite=not_finite,
        off_grid=off_grid,
        constant=sorted(constant),
        damaged=sorted(damaged),
    )


def _read_each(
    reader: FeatureReader, video_ids: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.floating], NDArray[np.float64]]]:
    with progress_bar(len(video_ids), what="inspect", unit="video") as bar:
        for names in reader.in_file_order(video_ids):
            for name in names:
                yield name, reader.read(name), reader.center_seconds(name)
                bar.update()


def _print_contract(reader: FeatureReader) -> None:
    table = Table("contract", "", title=reader.folder.uri, title_justify="left")
    for name, value in reader.contract.model_dump().items():
        table.add_row(name, "[dim]not known[/dim]" if value is None else str(value))
    table.add_row("content hash", features_hash(reader.folder))
    CONSOLE.print(table)


def _print_statistics(found: FeatureStatistics, reader: FeatureReader) -> None:
    num_bytes = found.num_clips * reader.contract.feature_dim * reader.dtype.itemsize
    hours = found.num_clips * reader.contract.clip_seconds / 3600
    table = Table("features", "")
    table.add_row("videos", f"{found.num_videos:,}")
    table.add_row(
        "clips",
        f"{found.num_clips:,} ({found.shortest:,} to {found.longest:,} a video, {hours:.3g} h)",
    )
    table.add_row("values", f"{num_bytes / 2**20:,.1f} MiB of {reader.dtype}")
    table.add_row("smallest, largest", f"{found.minimum:.4g}, {found.maximum:.4g}")
    table.add_row("mean, deviation", f"{found.mean:.4g}, {found.standard_deviation:.4g}")
    table.add_row("zeros", f"{found.share_of_zeros:.1%}")
    table.add_row("not finite", _good_if(not found.not_finite, f"{found.not_finite:,} values"))
    off = [f"{name} ({seconds:.3g} s)" for name, seconds in sorted(found.off_grid.items())]
    table.add_row("times off the grid", _named(off))
    table.add_row("all clips equal", _named(found.constant))
    table.add_row("not as written", _named(found.damaged))
    CONSOLE.print(table)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return _good_if(not names, ", ".join(names[:MAX_LISTED]) + more)


def _good_if(good: bool, otherwise: str) -> str:
    return "[green]none[/green]" if good else f"[red]{otherwise}[/red]"


@styled
def feature_figure(reader: FeatureReader, video_id: str) -> Figure:
    """One video: its channels over time, and the length of the feature vector below."""
    values = reader.read(video_id).astype(np.float32)
    seconds = reader.center_seconds(video_id)
    half = reader.contract.clip_seconds / 2
    shown = averaged_channels(values, MAX_DRAWN_CHANNELS)
    figure = new_figure(FULL_WIDTH_INCHES, 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    # A few outliers would leave everything else dark.
    limits = np.percentile(shown, [1, 99])
    image = top.imshow(
        shown.T,
        aspect="auto",
        interpolation="nearest",
        cmap="cividis",
        vmin=limits[0],
        vmax=limits[1],
        extent=(seconds[0] - half, seconds[-1] + half, values.shape[1], 0),
    )
    top.set_title(f"{shorten(video_id)}: {len(values)} clips of {values.shape[1]} channels")
    top.set_ylabel("channel")
    tidy(top, grid="none")
    figure.colorbar(image, ax=[top, bottom], label="value (1st to 99th percentile)", aspect=40)
    norms = np.linalg.norm(values, axis=1)
    bottom.plot(seconds, norms, color=ACCENT, linewidth=1.2)
    bottom.axhline(float(norms.mean()), color=MUTED, linewidth=0.8, linestyle="--")
    bottom.set_ylim(0, None)
    bottom.set_xlabel("seconds")
    bottom.set_ylabel("Euclidean norm")
    tidy(bottom, grid="y")
    return figure


def averaged_channels(values: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """[T, F] -> [T, at most `most`]: means of neighbouring channels, in groups of equal width."""
    num_groups = min(values.shape[1], most)
    begins = np.arange(num_groups) * values.shape[1] // num_groups
    widths = np.diff([*begins, values.shape[1]])
    averaged = np.add.reduceat(values, begins, axis=1) / widths
    return averaged.astype(np.float32)
