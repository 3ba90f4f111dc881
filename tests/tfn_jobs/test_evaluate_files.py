import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfn_jobs.evaluate_files import FileEvaluation, Task, evaluate_files
from tfn_platform.errors import DataError

TRUTH: dict[str, Any] = {
    "database": {
        "one": {
            "subset": "validation",
            "duration": None,
            "annotations": [
                {"label": "jump", "segment": ["0.0", "10.0"]},
                {"label": "swim", "segment": ["20.0", "30.0"]},
            ],
        },
        "two": {
            "subset": "validation",
            "duration": "12.5",
            "annotations": [{"label": "jump", "segment": [2, 4]}],
        },
        "blank": {"subset": "validation", "duration": 3.0, "annotations": []},
        "other": {"subset": "training", "annotations": [{"label": "run", "segment": [0, 1]}]},
    }
}
FOUND: dict[str, Any] = {
    "results": {
        "one": [
            {"label": "jump", "segment": [0.0, 9.0], "score": 0.9},
            {"label": "jump", "segment": [0.0, 10.0], "score": 0.8},
            {"label": "skip", "segment": [20.0, 30.0], "score": 0.95},
        ],
        "elsewhere": [{"label": "swim", "segment": [0.0, 1.0], "score": 0.1}],
    }
}


def write(folder: Path, *, truth: Any = TRUTH, found: Any = FOUND) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "found.json"
    for path, content in zip(paths, (truth, found), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def evaluate(folder: Path, *, task: Task = "detection", **content: Any) -> FileEvaluation:
    truth, found = write(folder, **content)
    return evaluate_files(truth, found, task=task, subset="validation")


def itself(truth: dict[str, Any], *, subset: str = "validation") -> dict[str, Any]:
    """The ground truth as predictions, each with score 1."""
    return {
        "results": {
            video: [{**annotation, "score": 1.0} for annotation in entry["annotations"]]
            for video, entry in truth["database"].items()
            if entry["subset"] == subset
        }
    }


def test_detection_by_hand(tmp_path: Path) -> None:
    """One of two jumps is found: by the first prediction up to IoU 0.9, the second at 0.95."""
    result = evaluate(tmp_path)
    assert result.average_precision == pytest.approx({"jump": 0.475, "swim": 0.0})
    assert result.figures["map_at_0.50"] == pytest.approx(0.25)
    assert result.figures["map_at_0.95"] == pytest.approx(0.125)
    assert result.figures["average_map"] == pytest.approx(0.2375)
    assert (result.num_videos, result.num_ground_truths, result.num_predictions) == (2, 3, 4)
    assert (result.num_missing_videos, result.num_unknown_videos) == (1, 1)


def test_proposals_need_no_labels(tmp_path: Path) -> None:
    segments = [{"segment": [0, 10], "score": 1}, {"segment": [20, 30], "score": 0}]
    found = {"results": {"one": segments}}
    result = evaluate(tmp_path, task="proposals", found=found)
    assert result.figures["average_recall_at_100"] == pytest.approx(2 / 3)
    assert result.figures["average_recall_at_1"] == pytest.approx(2 / 3)
    assert result.average_precision == {}


def test_classification_needs_no_segments(tmp_path: Path) -> None:
    found = {
        "results": {
            "one": [{"label": "skip", "score": 0.9}, {"label": "swim", "score": 0.8}],
            "two": [{"label": "jump", "score": -3.0}],
        }
    }
    figures = evaluate(tmp_path, task="classification", found=found).figures
    assert figures == {"top1_accuracy": 0.5, "top5_accuracy": 1.0}
    del found["results"]["two"]
    figures = evaluate(tmp_path, task="classification", found=found).figures
    assert figures == {"top1_accuracy": 0.0, "top5_accuracy": 0.5}


@pytest.mark.parametrize("task", ["detection", "classification"])
def test_ground_truth_against_itself_is_perfect(tmp_path: Path, task: Task) -> None:
    figures = evaluate(tmp_path, task=task, found=itself(TRUTH)).figures
    assert set(figures.values()) == {1.0}


def test_no_predictions_at_all_score_zero(tmp_path: Path) -> None:
    for task in ("detection", "proposals", "classification"):
        result = evaluate(tmp_path, task=task, found={"results": {}})
        assert set(result.figures.values()) == {0.0}
        assert result.num_missing_videos == 2


def test_the_result_can_be_written_and_printed(tmp_path: Path) -> None:
    result = evaluate(tmp_path)
    assert json.loads(json.dumps(result.to_json()))["figures"] == result.figures
    rows = dict(result.rows())
    assert rows["average_map"] == "0.2375"
    assert rows["subset"] == "validation"


def test_a_subset_need_not_be_named_if_there_is_only_one(tmp_path: Path) -> None:
    database = {"two": TRUTH["database"]["two"]}
    truth, found = write(tmp_path, truth={"database": database})
    assert evaluate_files(truth, found, task="detection").subset == "validation"
    truth, found = write(tmp_path)
    with pytest.raises(DataError, match="say which subset .* has: training, validation"):
        evaluate_files(truth, found, task="detection")
    with pytest.raises(DataError, match="no subset 'test'; it has: training, validation"):
        evaluate_files(truth, found, task="detection", subset="test")


def result_with(**changes: Any) -> dict[str, Any]:
    entry = {"label": "jump", "segment": [0.0, 1.0], "score": 0.5} | changes
    return {"results": {"one": [{key: v for key, v in entry.items() if v is not None}]}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("{", "found.json: is not JSON text"),
        ([], 'must be an object with the key "results", got list'),
        ({"result": {}, "version": 1}, "no key \"results\"; it has: 'result', 'version'"),
        ({"results": []}, '"results" must be an object by video, got list'),
        ({"results": {"one": None}}, r"results\['one'\]: must be a list, got null"),
        ({"results": {"one": ["jump"]}}, r"results\['one'\]\[0\]: must be an object .* got str"),
        (result_with(score=None), "no key \"score\"; it has: 'label', 'segment'"),
        (result_with(score=float("nan")), "score must be a finite number, got nan"),
        (result_with(score=True), "score must be a finite number, got True"),
        (result_with(segment=[0.0, "x"]), "segment must be a finite number, got 'x'"),
        (result_with(segment=[0.0, float("inf")]), "segment must be a finite number, got inf"),
        (result_with(segment=[2.0, 1.0]), r"segment ends before it starts: \[2.0, 1.0\]"),
        (result_with(segment=[2.0]), r"segment must be \[start, end\], got \[2.0\]"),
    ],
)
def test_bad_predictions_are_refused(tmp_path: Path, found: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(tmp_path, found=found)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"annotations": []}, r"truth.json: database\['v'\]: has no key \"subset\""),
        ({"subset": "validation"}, r"database\['v'\]: has no key \"annotations\""),
        ({"subset": "validation", "annotations": []}, "no video of subset 'validation'"),
        (
            {"subset": "validation", "annotations": [{"label": "a", "segment": [3, 1]}]},
            r"\[\"annotations\"\]\[0\]: segment ends before it starts",
        ),
    ],
)
def test_bad_ground_truth_is_refused(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(tmp_path, truth={"database": {"v": entry}})


def test_a_missing_file_and_an_unknown_task_are_refused(tmp_path: Path) -> None:
    truth, found = write(tmp_path)
    with pytest.raises(DataError, match="nowhere.json: cannot be read: No such file"):
        evaluate_files(tmp_path / "nowhere.json", found, task="detection")
    with pytest.raises(ValueError, match="one of detection, proposals, classification, got 'x'"):
        evaluate_files(truth, found, task="x")  # type: ignore[arg-type]


def test_published_detections_get_their_official_figures(shared_dir: Path) -> None:
    """AutoLoc on ActivityNet 1.2, scored by the official toolkit."""
    folder = shared_dir / "data" / "predictions" / "autoloc_anet12"
    result = evaluate_files(
        folder / "ground_truth.json", folder / "predictions.json", task="detection"
    )
    printed = ".2733 .2494 .2251 .1990 .1747 .1514 .1297 .1002 .0683 .0327 .1604".split()
    assert [f"{value:.4f}"[1:] for value in result.figures.values()] == printed


@pytest.fixture(scope="module")
def anet13(shared_dir: Path) -> Path:
    return shared_dir / "data" / "annotations" / "anet13" / "anet13_validation_4926.json"


def test_activitynet_against_itself_is_perfect(anet13: Path, tmp_path: Path) -> None:
    """Three of its segments have no length; the toolkit counts them as found, and so do we."""
    _, found = write(tmp_path, found=itself(json.loads(anet13.read_text())))
    figures = evaluate_files(anet13, found, task="detection").figures
    assert set(figures.values()) == {1.0}


def test_random_proposals_get_their_official_figure(anet13: Path, tmp_path: Path) -> None:
    """Centre and length uniform in the video, 100 a video: the official notebook prints 44.88."""
    rng = np.random.default_rng(0)
    results = {}
    for video, entry in json.loads(anet13.read_text())["database"].items():
        last_end = max(annotation["segment"][1] for annotation in entry["annotations"])
        center, length, score = rng.random((3, 100)) * (entry["duration"] or last_end)
        segments = np.stack([center - length / 2, center + length / 2], axis=1)
        results[video] = [
            {"segment": segment, "score": value}
            for segment, value in zip(segments.tolist(), score.tolist(), strict=True)
        ]
    _, found = write(tmp_path, found={"results": results})
    result = evaluate_files(anet13, found, task="proposals")
    assert result.figures["auc_percent"] == pytest.approx(44.8, abs=0.4)


def test_thumos_text_segments_and_missing_durations_are_read(
    shared_dir: Path, tmp_path: Path
) -> None:
    truth = shared_dir / "data" / "annotations" / "thumos14" / "thumos_gt.json"
    _, found = write(tmp_path, found=itself(json.loads(truth.read_text()), subset="test"))
    result = evaluate_files(truth, found, task="detection", subset="test")
    assert result.figures["average_map"] == 1.0
    assert result.num_videos == 210
