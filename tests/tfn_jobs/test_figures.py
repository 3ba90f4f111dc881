import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from tfn_jobs.evaluation import Evaluation, EvaluationRow, Family, FusionWeights
from tfn_jobs.figure_style import inline_svg
from tfn_jobs.figures import (
    average_precision_figure,
    average_recall_figure,
    class_figure,
    confusion_figure,
    evaluation_figures,
    members_figure,
    weights_figure,
)

TIOUS = [0.5, 0.75, 0.95]


def row(name: str, family: Family, level: float, num_classes: int) -> EvaluationRow:
    return EvaluationRow(
        name=name,
        family=family,
        stage_key="0",
        metrics={"top1": level, "auc": level - 0.1, "map_average": level - 0.2},
        average_recall=[level * n / 100 for n in range(1, 101)],
        average_precision=[level, level - 0.2, level - 0.4],
        class_average_precision=[level * (k + 1) / num_classes for k in range(num_classes)],
    )


def make_evaluation(num_classes: int = 3, num_members: int = 2) -> Evaluation:
    members = [f"m{n}" for n in range(num_members)]
    names = [f"<b>$\\frac{{class}} {n}" for n in range(num_classes)]
    return Evaluation(
        subset="validation",
        num_videos=3 * num_classes,
        num_missing=0,
        tious=TIOUS,
        class_names=names,
        confusion=(3 * np.eye(num_classes, dtype=int)).tolist(),
        rows=[
            *(row(f"bmn/{name}", "bmn", 0.5, num_classes) for name in members),
            row("fusion/detections", "fusion", 0.8125, num_classes),
            row("fusion/detections (mean)", "fusion", 0.75, num_classes),
            row("untrained", "baseline", 0.41, num_classes),
        ],
        weights=[FusionWeights(title="class scores", members=members, weights=[0.5] * num_members)],
        detections_hash="0",
    )


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(("num_classes", "num_members"), [(1, 1), (3, 2), (200, 14)])
def test_all_figures_of_small_and_large_evaluations(num_classes: int, num_members: int) -> None:
    """Any label is drawn as it is: class names here look like HTML and like broken mathematics."""
    figures = evaluation_figures(make_evaluation(num_classes, num_members))
    assert [entry.name for entry in figures] == [
        "members", "average_recall", "average_precision", "classes", "confusion", "weights",
    ]  # fmt: skip
    for entry in figures:
        svg = inline_svg(entry.figure, prefix=entry.name)
        assert svg.startswith("<svg viewBox=")
        assert "<b>" not in svg


def test_nothing_to_draw() -> None:
    empty = make_evaluation().model_copy(update={"rows": [], "weights": [], "confusion": []})
    assert evaluation_figures(empty) == []


def test_recall_has_a_curve_a_row_and_the_ensemble_stands_out() -> None:
    sample = make_evaluation()
    figure = average_recall_figure(sample)
    lines = figure.axes[0].lines
    assert legend_of(figure) == [entry.name for entry in sample.rows]
    assert max(lines, key=lambda line: line.get_linewidth()).get_label() == "fusion/detections"
    np.testing.assert_allclose(lines[2].get_ydata()[-1], 81.25)
    styles = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(styles) == len(lines)


def test_precision_compares_the_ensemble_with_what_it_has_to_beat() -> None:
    figure = average_precision_figure(make_evaluation())
    assert legend_of(figure) == [
        "Fused ensemble", "Uniform mean", "Best single: bmn/m0", "Untrained",
    ]  # fmt: skip
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), TIOUS)


def test_members_are_ordered_and_the_baseline_is_left_out() -> None:
    axes = members_figure(make_evaluation()).axes
    assert [entry.get_title(loc="left") for entry in axes] == ["top-1, %", "AUC, %", "mAP, %"]
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == ["bmn/m0", "bmn/m1", "fusion/detections (mean)", "fusion/detections"]
    assert [text.get_text() for text in axes[0].texts][-1] == "81.25"


def test_bars_of_classes_are_sorted() -> None:
    axes = class_figure(make_evaluation()).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [81.25 / 3, 81.25 * 2 / 3, 81.25])


def test_many_classes_show_the_best_and_the_worst() -> None:
    axes = class_figure(make_evaluation(num_classes=200)).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == 30
    np.testing.assert_allclose([widths[0], widths[-1]], [81.25 / 200, 81.25])


def test_confusion_counts() -> None:
    axes = confusion_figure(make_evaluation()).axes[0]
    counts = [text.get_text() for text in axes.texts]
    assert counts == ["3", "0", "0", "0", "3", "0", "0", "0", "3"]


def test_weights_show_the_uniform_mean() -> None:
    axes = weights_figure(make_evaluation()).axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.5, 0.5])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.5, 0.5])


def test_settings_of_others_stay() -> None:
    before = dict(matplotlib.rcParams)
    evaluation_figures(make_evaluation())
    assert dict(matplotlib.rcParams) == before


def test_equal_figures_give_equal_text_and_ids_of_their_own() -> None:
    sample = make_evaluation()
    first, second = (inline_svg(confusion_figure(sample), prefix="a") for _ in range(2))
    assert first == second
    ids = re.findall(r'\bid="([^"]*)"', first)
    assert ids and all(name.startswith("a-") for name in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", first)) <= set(ids)
    assert "http" not in first
