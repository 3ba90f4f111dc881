import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tfn_jobs.evaluation import Evaluation, EvaluationRow, FusionWeights
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.report import ReportJob, VideoTimeline, choose_spread, read_timelines, write_report
from tfn_jobs.timeline import TimedAction
from tfn_platform.parquet import write_table
from tfn_platform.spec import load_spec
from tfn_platform.stages import Stage
from tfn_platform.store import Store
from tfn_platform.tables import ANNOTATIONS, DETECTIONS, QUARANTINE, VIDEOS, Table

HOSTILE = "<script>alert('x')</script>"
VOID = {"br", "meta"}
PREPARE, FUSE = Stage("prepare", {}), Stage("fuse", {})
EVALUATE, REPORT = Stage("evaluate", {}), Stage("report", {})


def put(store: Store, stage: Stage, table: Table, rows: list[dict[str, Any]]) -> None:
    """Write rows that name only the columns that matter; the others get an empty value."""
    filled = [
        {
            field.name: row.get(field.name, "" if pa.types.is_string(field.type) else 0)
            for field in table.schema
        }
        for row in rows
    ]
    data = pa.Table.from_pylist(filled, schema=table.schema)
    write_table(stage.folder(store), table, data, contract=stage.contract(table))


def segment(video: int, label: str, start: float, end: float, **more: Any) -> dict[str, Any]:
    times = {"start_seconds": start, "end_seconds": end}
    return {"video_id": f"video{video}", "label": label, "subset": "validation", **times, **more}


def make_evaluation() -> Evaluation:
    def row(name: str, family: Any, level: float) -> EvaluationRow:
        return EvaluationRow(
            name=name,
            family=family,
            stage_key="0",
            metrics={"top1": 0.9, "ar_at_100": 0.8, "map_average": level, "map_at_0.50": 0.7},
            average_recall=[0.5, 0.6, 0.7],
            average_precision=[level, level],
            class_average_precision=[level, level],
        )

    return Evaluation(
        subset="validation",
        num_videos=4,
        num_missing=1,
        tious=[0.5, 0.75],
        class_names=["jump", HOSTILE],
        confusion=[[1231, 1], [0, 1]],
        rows=[
            row("bmn/only", "bmn", 0.4321),
            row("fusion/detections", "fusion", 0.5678),
            row("fusion/detections (mean)", "fusion", 0.5555),
            row("untrained", "baseline", 0.0123),
        ],
        weights=[FusionWeights(title="boundary maps: start", members=["only"], weights=[1.0])],
        detections_hash="0123456789abcdef",
    )


@pytest.fixture
def job(tmp_path: Path, repository: Path) -> ReportJob:
    store = Store.open(str(tmp_path))
    subsets = ["validation", "validation", "validation", "training"]
    videos = [
        {"video_id": f"video{n}", "subset": subset, "duration_seconds": 10.0}
        for n, subset in enumerate(subsets)
    ]
    put(store, PREPARE, VIDEOS, videos)
    truth = [segment(n, "jump", 2.0, 6.0) for n in range(4)] + [segment(0, HOSTILE, 7.0, 8.0)]
    put(store, PREPARE, ANNOTATIONS, truth)
    bad = {"video_id": "video9", "uri": "/some/where/video9.mp4", "reason": "empty_file"}
    put(store, PREPARE, QUARANTINE, [{**bad, "detail": "<img src=x>", "attempts": 1}])
    found = [
        segment(0, "jump", 2.0, 6.0, score=0.875),
        segment(0, HOSTILE, 7.0, 8.0, score=0.75),
        segment(1, "jump", 4.0, 6.0, score=0.5),
        segment(3, "jump", 4.0, 6.0, score=0.5),
    ]
    put(store, FUSE, DETECTIONS, found)
    metrics = make_evaluation().model_dump(mode="json")
    store.write_json(EVALUATE.folder(store).metrics, metrics)
    for stage in (PREPARE, FUSE, EVALUATE):
        stage.commit(store, seconds=0)
    folders = [stage.folder(store) for stage in (PREPARE, FUSE, EVALUATE, REPORT)]
    spec = load_spec(PipelineSpec, repository / "jobs" / "demo.yaml")
    return ReportJob(spec, REPORT, *folders)


def page_of(job: ReportJob) -> str:
    figures = write_report(job)
    assert figures["report"].endswith("/report.html")
    return job.folder.store.read_bytes(job.folder.file("report.html")).decode()


class Balance(HTMLParser):
    """Collects attributes, and checks that each tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_else(job: ReportJob) -> None:
    page = page_of(job)
    assert "http" not in page
    assert not re.search(r"\bsrc=|@import", page.replace("&lt;img src=x&gt;", ""))
    parsed = Balance()
    parsed.feed(page)
    assert parsed.open == []
    assert "script" not in parsed.tags and "img" not in parsed.tags
    assert len(parsed.ids) == len(set(parsed.ids))


def test_labels_cannot_be_markup(job: ReportJob) -> None:
    page = page_of(job)
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;alert" in page


def test_page_has_the_figures(job: ReportJob) -> None:
    page = page_of(job)
    for text in ("56.78", "43.21", "55.55", "1.23", "+13.57", "80.00", "0123456789abcdef"):
        assert text in page, text
    # Inside the pictures: a count of the confusion matrix, a score, and the weights' title.
    for text in ("1231", "0.88", "boundary maps: start"):
        assert f">{text}</text>" in page, text
    assert page.count("<svg") == 6 + 2
    assert "1 of them could not be used" in page


def test_quarantined_videos_and_why(job: ReportJob) -> None:
    page = page_of(job)
    assert "video9.mp4" in page and "empty file" in page
    assert "/some/where" not in page


def test_equal_inputs_give_equal_bytes(job: ReportJob) -> None:
    assert page_of(job) == page_of(job)


def test_page_without_quarantine_and_timelines(job: ReportJob) -> None:
    store = job.prepared.store
    store.delete_file(f"{job.prepared.table('quarantine')}/part-00000.parquet")
    evaluation = job.spec.evaluation.model_copy(update={"timelines": 0})
    spec = job.spec.model_copy(update={"evaluation": evaluation})
    page = page_of(ReportJob(spec, REPORT, job.prepared, job.fused, job.evaluated, job.folder))
    assert "Timelines" not in page and "could not be used</h2>" not in page


def test_timelines_are_of_scored_videos_with_detections(job: ReportJob) -> None:
    videos = read_timelines(job.prepared, job.fused, subset="validation")
    assert [video.video_id for video in videos] == ["video0", "video1"]
    assert [action.score for action in videos[0].detected] == [0.875, 0.75]
    assert videos[0].overlap == 1.0
    # 4 to 6 of 2 to 6.
    assert videos[1].overlap == 0.5


def test_overlap_needs_the_right_class() -> None:
    truth = (TimedAction("jump", 0.0, 4.0), TimedAction("swim", 4.0, 8.0))
    found = (TimedAction("jump", 0.0, 4.0, 0.9), TimedAction("jump", 4.0, 8.0, 0.8))
    assert VideoTimeline("one", 10.0, truth, found).overlap == 0.5


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, ["v9"]), (3, ["v9", "v5", "v0"]), (20, None)]
)
def test_spread_goes_from_best_to_worst(count: int, expected: list[str] | None) -> None:
    videos = [
        VideoTimeline(
            f"v{n}", 10.0, (TimedAction("a", 0.0, 9.0),), (TimedAction("a", 0.0, float(n)),)
        )
        for n in range(10)
    ]
    chosen = [video.video_id for video in choose_spread(videos, count)]
    assert chosen == (expected if expected is not None else [f"v{n}" for n in range(9, -1, -1)])
