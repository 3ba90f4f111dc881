"""Job: render the synthetic data set, each video in whatever task is free."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfn_jobs.console import with_progress
from tfn_jobs.data_specs import SyntheticDataSpec
from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video, write_annotations
from tfn_platform.map_table import map_rows
from tfn_platform.store import StageFolder

ANNOTATIONS_FILE = "annotations.json"
VIDEOS_FOLDER = "videos"


def synthetic_config(spec: SyntheticDataSpec) -> SyntheticConfig:
    """What the renderer needs of the spec."""
    return SyntheticConfig(**spec.model_dump(exclude={"format"}))


def synthesize(spec: SyntheticDataSpec, folder: StageFolder) -> dict[str, int]:
    """Render all videos that are not there yet, then write the annotation.

    Returns:
        Figures for the commit: how many videos, and how many of them are damaged.
    """
    config = synthetic_config(spec)

    def render(row: dict[str, Any]) -> dict[str, Any]:
        rendered = render_video(config, int(row["item"]))
        folder.store.write_bytes(
            folder.file(f"{VIDEOS_FOLDER}/{rendered.file_name}"), rendered.data
        )
        return {
            "video_id": rendered.annotated.video_id,
            "subset": rendered.annotated.subset,
            "duration_seconds": rendered.annotated.duration_seconds,
            "labels": [s.label for s in rendered.annotated.segments],
            "starts": [s.start_seconds for s in rendered.annotated.segments],
            "ends": [s.end_seconds for s in rendered.annotated.segments],
            "is_damaged": rendered.damage is not None,
        }

    rows = [{"item": index} for index in range(config.num_videos)]
    rendered = list(
        with_progress(map_rows(rows, render), total=len(rows), what="synthesize", unit="video")
    )
    _write_annotations([_annotated(row) for row in rendered], folder)
    return {"videos": len(rendered), "damaged": sum(row["is_damaged"] for row in rendered)}


def _annotated(row: dict[str, Any]) -> AnnotatedVideo:
    segments = zip(row["labels"], row["starts"], row["ends"], strict=True)
    return AnnotatedVideo(
        row["video_id"],
        row["subset"],
        row["duration_seconds"],
        tuple(LabelledSegment(*segment) for segment in segments),
    )


def _write_annotations(videos: list[AnnotatedVideo], folder: StageFolder) -> None:
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / ANNOTATIONS_FILE
        write_annotations(videos, path)
        folder.store.write_bytes(folder.file(ANNOTATIONS_FILE), path.read_bytes())
