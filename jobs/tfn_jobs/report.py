"""Job: write everything that was measured on one page, which needs no network and no other file."""

from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from tfn_jobs.evaluation import FINAL_ROW, Evaluation
from tfn_jobs.figure_style import inline_svg
from tfn_jobs.figures import evaluation_figures
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.result_table import METRIC_NAMES, contenders, percent, result_tables
from tfn_jobs.timeline import TimedAction, class_colors, timeline_figure
from tfn_models.segments import pairwise_iou
from tfn_platform.parquet import read_table
from tfn_platform.stages import Stage
from tfn_platform.store import StageFolder
from tfn_platform.tables import ANNOTATIONS, DETECTIONS, QUARANTINE, VIDEOS, Table

REPORT_FILE = "report.html"
TEMPLATE_FILE = "report_template.html"
SHOWN_DETECTIONS = 10
HEADLINE_METRICS = ("map_average", "map_at_0.50", "ar_at_100", "auc", "top1")


@dataclass(frozen=True)
class ReportJob:
    """What the report is made of."""

    spec: PipelineSpec
    stage: Stage
    prepared: StageFolder
    fused: StageFolder
    evaluated: StageFolder
    folder: StageFolder


@dataclass(frozen=True)
class VideoTimeline:
    """A video with its annotated actions and its surest detections.

    Both have at least one.
    """

    video_id: str
    duration_seconds: float
    annotated: tuple[TimedAction, ...]
    detected: tuple[TimedAction, ...]

    @property
    def overlap(self) -> float:
        """Mean, over annotated actions, of the best temporal IoU with one of their class."""
        best: list[float] = []
        for label in sorted({action.label for action in self.annotated}):
            truth = [a for a in self.annotated if a.label == label]
            found = [a for a in self.detected if a.label == label]
            if found:
                best += pairwise_iou(_segments(truth), _segments(found)).amax(1).tolist()
        return sum(best) / len(self.annotated)


def write_report(job: ReportJob) -> dict[str, str]:
    """Write the page. Equal inputs give equal bytes.

    Returns:
        Figures for the commit: where the page lies.
    """
    store = job.folder.store
    evaluation = Evaluation.model_validate(store.read_json(job.evaluated.metrics))
    page = _template().render(
        pipeline=job.spec.name,
        evaluation=evaluation,
        percent=percent,
        headline=_headline(evaluation),
        contenders=contenders(evaluation),
        tables=result_tables(evaluation),
        figures=[
            (entry, _svg(entry.figure, entry.name)) for entry in evaluation_figures(evaluation)
        ],
        timelines=_timelines(job, evaluation),
        shown_detections=SHOWN_DETECTIONS,
        quarantined=_quarantined(job.prepared),
        final_row=FINAL_ROW,
    )
    store.write_bytes(job.folder.file(REPORT_FILE), page.encode())
    return {"report": store.uri(job.folder.file(REPORT_FILE))}


def choose_spread(videos: list[VideoTimeline], count: int) -> list[VideoTimeline]:
    """`count` videos from the best to the worst overlap, evenly spread over their ranks."""
    ranked = sorted(videos, key=lambda video: (-video.overlap, video.video_id))
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


def read_timelines(
    prepared: StageFolder, fused: StageFolder, *, subset: str
) -> list[VideoTimeline]:
    """The videos of a subset that have both annotated actions and detections, by name."""
    annotated = _actions(prepared, ANNOTATIONS)
    detected = _actions(fused, DETECTIONS)
    videos, _ = read_table(prepared, VIDEOS)
    return [
        VideoTimeline(
            row["video_id"],
            row["duration_seconds"],
            tuple(annotated[row["video_id"]]),
            tuple(detected[row["video_id"]][:SHOWN_DETECTIONS]),
        )
        for row in videos.sort_by("video_id").to_pylist()
        if row["subset"] == subset and row["video_id"] in annotated and row["video_id"] in detected
    ]


def _actions(folder: StageFolder, table: Table) -> dict[str, list[TimedAction]]:
    """The rows of ANNOTATIONS in time or of DETECTIONS by score, by video."""
    rows, _ = read_table(folder, table)
    order = [("start_seconds", "ascending"), ("end_seconds", "ascending"), ("label", "ascending")]
    has_score = "score" in rows.schema.names
    if has_score:
        order.insert(0, ("score", "descending"))
    actions = defaultdict(list)
    for row in rows.sort_by(order).to_pylist():
        score = row["score"] if has_score else 1.0
        action = TimedAction(row["label"], row["start_seconds"], row["end_seconds"], score)
        actions[row["video_id"]].append(action)
    return dict(actions)


def _timelines(job: ReportJob, evaluation: Evaluation) -> list[tuple[VideoTimeline, Markup]]:
    count = job.spec.evaluation.timelines
    videos = read_timelines(job.prepared, job.fused, subset=evaluation.subset)
    chosen = choose_spread(videos, count)
    # A class that is never trained on is annotated all the same.
    labels = {action.label for video in chosen for action in (*video.annotated, *video.detected)}
    known = evaluation.class_names
    colors = class_colors([*known, *sorted(labels - set(known))])
    made = []
    for number, video in enumerate(chosen):
        figure = timeline_figure(
            video.annotated,
            video.detected,
            duration_seconds=video.duration_seconds,
            colors=colors,
        )
        made.append((video, _svg(figure, f"timeline-{number}")))
    return made


def _headline(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Names and values, in percent, of the metrics that the whole ensemble is known by."""
    final = evaluation.row(FINAL_ROW)
    figures = final.metrics if final else {}
    return [(METRIC_NAMES[m], percent(figures[m])) for m in HEADLINE_METRICS if m in figures]


def _quarantined(prepared: StageFolder) -> list[dict[str, Any]]:
    if not prepared.store.list_files(prepared.table(QUARANTINE.name.lower())):
        return []
    rows, _ = read_table(prepared, QUARANTINE)
    return [
        {**row, "file": PurePosixPath(row["uri"]).name, "reason": row["reason"].replace("_", " ")}
        for row in rows.sort_by("video_id").to_pylist()
    ]


def _segments(actions: list[TimedAction]) -> torch.Tensor:
    pairs = [(action.start_seconds, action.end_seconds) for action in actions]
    return torch.tensor(pairs, dtype=torch.float64)


def _svg(figure: Figure, prefix: str) -> Markup:
    """A figure for the page. matplotlib has escaped the texts in it."""
    return Markup(inline_svg(figure, prefix=prefix))


def _template() -> jinja2.Template:
    text = files("tfn_jobs").joinpath(TEMPLATE_FILE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
