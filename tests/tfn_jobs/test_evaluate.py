"""The pipeline's figures against those of prediction files, which go another way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tfn_jobs.small_pipeline import CLASS_NAMES, FUSION, SmallPipeline, SmallVideo
from tfn_jobs.class_score_tables import logits_of
from tfn_jobs.detection_tables import DETECTIONS_FILE
from tfn_jobs.evaluate import evaluate
from tfn_jobs.evaluate_files import evaluate_files
from tfn_jobs.evaluation import BASELINE_ROW, FINAL_ROW, Evaluation
from tfn_jobs.proposal_tables import FUSED, proposals_of, ranked_for
from tfn_platform.parquet import read_table
from tfn_platform.store import Store
from tfn_platform.tables import PROPOSALS


def evaluation_of(small: SmallPipeline) -> Evaluation:
    job = small.evaluate_job()
    evaluate(job)
    return Evaluation.model_validate(small.store.read_json(job.folder.metrics))


def metrics_of(evaluation: Evaluation, name: str) -> dict[str, float]:
    row = evaluation.row(name)
    assert row is not None, name
    return row.metrics


def write_truth(path: Path, videos: list[SmallVideo]) -> Path:
    database = {
        video.video_id: {
            "subset": video.subset,
            "annotations": [
                {"label": label, "segment": [start, end]} for label, start, end in video.segments
            ],
        }
        for video in videos
    }
    path.write_text(json.dumps({"database": database}))
    return path


def write_results(path: Path, results: dict[str, list[dict[str, object]]]) -> Path:
    path.write_text(json.dumps({"results": results}))
    return path


def test_detections_score_as_their_file_does(predicted: SmallPipeline, tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json", predicted.videos)
    file = tmp_path / "detections.json"
    fused = predicted.evaluate_job().fused
    file.write_bytes(predicted.store.read_bytes(fused.file(DETECTIONS_FILE)))
    expected = evaluate_files(truth, file, task="detection", subset="validation")
    evaluation = evaluation_of(predicted)
    metrics = metrics_of(evaluation, FINAL_ROW)
    assert metrics["map_average"] == pytest.approx(expected.figures["average_map"], abs=1e-12)
    assert metrics["map_average"] > 0
    for name, value in expected.figures.items():
        if name.startswith("map_at"):
            assert metrics[name] == pytest.approx(value, abs=1e-12)
    row = evaluation.row(FINAL_ROW)
    assert row is not None
    by_class = dict(zip(evaluation.class_names, row.class_average_precision, strict=True))
    assert by_class == pytest.approx(expected.average_precision, abs=1e-12)
    assert (evaluation.num_videos, evaluation.num_missing) == (9, 1)
    assert expected.num_missing_videos == 1


@pytest.mark.parametrize(("row", "member"), [("fusion/proposals", FUSED), ("bmn/two", "two")])
def test_proposals_score_as_their_file_does(
    store: Store, in_process: None, tmp_path: Path, row: str, member: str
) -> None:
    """The fused proposals of training videos, which are many here, were counted in, too."""
    fusion = FUSION.model_copy(update={"num_bins": 24, "proposals_per_video": 100})
    predicted = SmallPipeline.predicted(store, fusion=fusion)
    truth = write_truth(tmp_path / "truth.json", predicted.videos)
    table, _ = read_table(predicted.evaluate_job().proposed, PROPOSALS)
    results: dict[str, list[dict[str, object]]] = {
        video_id: [
            {"segment": segment, "score": score}
            for segment, score in zip(found.segments.tolist(), found.scores.tolist(), strict=True)
        ]
        for video_id, found in proposals_of(table, ranked_for(member, "recall")).items()
        if video_id in predicted.evaluated
    }
    file = write_results(tmp_path / "proposals.json", results)
    figures = evaluate_files(truth, file, task="proposals", subset="validation").figures
    metrics = metrics_of(evaluation_of(predicted), row)
    assert 0 < metrics["ar_at_5"] < metrics["ar_at_100"]
    for number in (1, 5, 10, 100):
        expected = figures[f"average_recall_at_{number}"]
        assert metrics[f"ar_at_{number}"] == pytest.approx(expected, abs=1e-12)
    assert metrics["auc"] == pytest.approx(figures["auc_percent"] / 100, abs=1e-12)


@pytest.mark.parametrize(
    ("row", "member"), [("classifier/one", None), ("fusion/classifiers", FUSED)]
)
def test_classes_score_as_their_file_does(
    predicted: SmallPipeline, tmp_path: Path, row: str, member: str | None
) -> None:
    truth = write_truth(tmp_path / "truth.json", predicted.videos)
    job = predicted.evaluate_job()
    folder = job.fused if member else predicted.classifiers["one"]
    logits = logits_of(folder, predicted.evaluated, member=member)
    results: dict[str, list[dict[str, object]]] = {
        video_id: [
            {"label": label, "score": score}
            for label, score in zip(CLASS_NAMES, scores.tolist(), strict=True)
        ]
        for video_id, scores in zip(predicted.evaluated, logits, strict=True)
    }
    file = write_results(tmp_path / "classes.json", results)
    figures = evaluate_files(truth, file, task="classification", subset="validation").figures
    metrics = metrics_of(evaluation_of(predicted), row)
    assert metrics["top1"] == figures["top1_accuracy"]
    # Of nine videos one has no file; all classes are among the best five.
    assert metrics["top5"] == figures["top5_accuracy"] == pytest.approx(8 / 9)


def test_every_member_and_every_step_has_a_row(predicted: SmallPipeline) -> None:
    evaluation = evaluation_of(predicted)
    names = [row.name for row in evaluation.rows]
    members = [
        f"{family}/{n}" for family in ("classifier", "bmn", "refiner") for n in ("one", "two")
    ]
    steps = ["fusion/classifiers", "fusion/proposals", "fusion/detections"]
    assert names == [*members, *steps, *(f"{step} (mean)" for step in steps)]
    for row in evaluation.rows:
        assert all(0 <= value <= 1 for value in row.metrics.values()), row
    titles = {entry.title: entry for entry in evaluation.weights}
    assert len(titles) == 6
    for entry in titles.values():
        assert entry.members == ["one", "two"]
        assert sum(entry.weights) == pytest.approx(1)


def test_baseline_is_the_untrained_members_alone(predicted: SmallPipeline) -> None:
    assert evaluation_of(predicted).row(BASELINE_ROW) is None
    trained = predicted.evaluate_job()
    job = replace(
        trained,
        classifiers={"two": trained.classifiers["two"]},
        bmns={"two": trained.bmns["two"]},
        untrained_classifiers={"untrained": trained.classifiers["one"]},
        # Its proposals are found by its own name.
        untrained_bmns={"one": trained.bmns["one"]},
    )
    evaluate(job)
    baseline = Evaluation.model_validate(predicted.store.read_json(job.folder.metrics)).rows[-1]
    assert baseline.name == BASELINE_ROW and baseline.family == "baseline"
    evaluation = evaluation_of(predicted)
    for name in ("top1", "top5"):
        assert baseline.metrics[name] == metrics_of(evaluation, "classifier/one")[name]
    for name in ("ar_at_1", "ar_at_100", "auc"):
        assert baseline.metrics[name] == metrics_of(evaluation, "bmn/one")[name]
    # mAP is of its own classes, not of the fused ones.
    assert baseline.metrics["map_average"] != metrics_of(evaluation, "bmn/one")["map_average"]


def test_confusion_counts_usable_videos(predicted: SmallPipeline) -> None:
    evaluation = evaluation_of(predicted)
    logits = logits_of(predicted.evaluate_job().fused, predicted.evaluated, member=FUSED)
    expected = [[0] * 3 for _ in range(3)]
    by_name = {video.video_id: video for video in predicted.videos}
    for video_id, scores in zip(predicted.evaluated, logits.tolist(), strict=True):
        true = CLASS_NAMES.index(by_name[video_id].segments[0][0])
        expected[true][scores.index(max(scores))] += 1
    assert evaluation.confusion == expected
    assert sum(map(sum, expected)) == 8
