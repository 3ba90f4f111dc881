"""The figures of an evaluation, for the report and for MLflow; they touch no global state."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfn_jobs.evaluation import FINAL_ROW, Evaluation, EvaluationRow, Family, FusionWeights
from tfn_jobs.figure_style import (
    ACCENT,
    FULL_WIDTH_INCHES,
    HALF_WIDTH_INCHES,
    INK,
    MUTED,
    PAPER,
    new_figure,
    shorten,
    styled,
    tidy,
)
from tfn_jobs.result_table import BEST_SINGLE, METRIC_NAMES, contenders, percent

FAMILY_COLORS: dict[Family, str] = {
    "fusion": ACCENT,
    "classifier": "#cc79a7",
    "bmn": "#e69f00",
    "refiner": "#009e73",
    "baseline": MUTED,
}
LINE_STYLES = ("-", "--", ":", "-.")
MAX_NAMED_CLASSES = 30
COMPARED_METRICS = ("top1", "auc", "map_average")


@dataclass(frozen=True)
class ResultFigure:
    """A figure with what a page writes around it."""

    name: str
    title: str
    caption: str
    figure: Figure
    is_wide: bool = False


def evaluation_figures(evaluation: Evaluation) -> list[ResultFigure]:
    """Every figure for which the evaluation has data."""
    rows = evaluation.rows
    final = evaluation.row(FINAL_ROW)
    figures = []
    if any(row.metrics.keys() & set(COMPARED_METRICS) for row in _trained(evaluation)):
        text = "Every member and every step of the fusion. The axes do not start at zero."
        made = members_figure(evaluation)
        figures.append(ResultFigure("members", "Members against the fusion", text, made, True))
    if any(row.average_recall for row in rows):
        text = "Average recall over the number of proposals a video; AUC is the area under it."
        made = average_recall_figure(evaluation)
        figures.append(ResultFigure("average_recall", "Recall of the proposals", text, made))
    if any(entry.row.average_precision for entry in contenders(evaluation)):
        text = "Mean average precision when a detection must overlap an action at least so much."
        made = average_precision_figure(evaluation)
        figures.append(ResultFigure("average_precision", "mAP by temporal IoU", text, made))
    if final and final.class_average_precision:
        text = "Average precision of each class, mean over thresholds. " + (
            f"The {MAX_NAMED_CLASSES // 2} best and worst of {len(evaluation.class_names)}."
            if len(evaluation.class_names) > MAX_NAMED_CLASSES
            else "Bar: the ensemble. Dot: the best single member, where it was measured."
        )
        figures.append(ResultFigure("classes", "Classes", text, class_figure(evaluation)))
    if evaluation.confusion:
        text = (
            "Videos by true class and by the fused classifiers' first choice; rows add up to 100 %."
        )
        figures.append(ResultFigure("confusion", "Confusions", text, confusion_figure(evaluation)))
    if evaluation.weights:
        text = "Weight of each member, mean over folds. Dashed: the uniform mean."
        made = weights_figure(evaluation)
        figures.append(ResultFigure("weights", "Learned weights", text, made, True))
    return figures


@styled
def average_recall_figure(evaluation: Evaluation) -> Figure:
    """Average recall over the number of proposals, one curve a row that has proposals."""
    rows = [row for row in evaluation.rows if row.average_recall]
    figure = new_figure(HALF_WIDTH_INCHES, 3.2 + 0.08 * len(rows))
    axes = tidy(figure.add_subplot(), grid="both")
    for row, style in zip(rows, _line_styles(rows), strict=True):
        counts = range(1, len(row.average_recall) + 1)
        axes.plot(counts, 100 * np.array(row.average_recall), label=shorten(row.name), **style)
    longest = max(len(row.average_recall) for row in rows)
    axes.set(xlabel="proposals a video", ylabel="average recall, %", xlim=(1, longest))
    axes.set_ylim(0, 100)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def average_precision_figure(evaluation: Evaluation) -> Figure:
    """The mAP at each threshold, of the whole ensemble and of what it has to beat."""
    compared = [c for c in contenders(evaluation) if c.row.average_precision]
    figure = new_figure(HALF_WIDTH_INCHES, 3.8)
    axes = tidy(figure.add_subplot(), grid="both")
    styles = _line_styles([entry.row for entry in compared])
    for entry, style in zip(compared, styles, strict=True):
        values = 100 * np.array(entry.row.average_precision)
        label = entry.title if entry.title != BEST_SINGLE else f"Best single: {entry.row.name}"
        axes.plot(
            evaluation.tious, values, marker="o", markersize=3.5, label=shorten(label, 44), **style
        )
    axes.set(xlabel="temporal IoU", ylabel="mAP, %", xticks=evaluation.tious)
    axes.xaxis.set_major_formatter("{x:.2f}")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _line_styles(rows: Sequence[EvaluationRow]) -> list[dict[str, Any]]:
    """Its family's colour and a line style of its own for each row; the ensemble stands out."""
    seen: dict[Family, int] = defaultdict(int)
    styles = []
    for row in rows:
        is_final = row.name == FINAL_ROW
        # The ensemble has the plain line of its family's colour to itself.
        number = 0 if is_final else seen[row.family] + (row.family == "fusion")
        seen[row.family] += not is_final
        styles.append(
            {
                "color": FAMILY_COLORS[row.family],
                "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
                "linewidth": 2.8 if is_final else 1.3,
                "zorder": 3 if is_final else 2,
            }
        )
    return styles


@styled
def members_figure(evaluation: Evaluation) -> Figure:
    """A panel for each of top-1, AUC and mAP: members and fusion, the best on top."""
    trained = _trained(evaluation)
    metrics = [m for m in COMPARED_METRICS if any(m in row.metrics for row in trained)]
    panels = {m: [row for row in trained if m in row.metrics] for m in metrics}
    height = 0.7 + 0.21 * max(len(rows) for rows in panels.values())
    figure = new_figure(FULL_WIDTH_INCHES, height)
    for position, (metric, rows) in enumerate(panels.items()):
        axes = tidy(figure.add_subplot(1, len(panels), position + 1), grid="y")
        rows = sorted(rows, key=lambda row: row.metrics[metric])
        values = [100 * row.metrics[metric] for row in rows]
        colors = [FAMILY_COLORS[row.family] for row in rows]
        axes.hlines(range(len(rows)), min(values), values, colors=colors, linewidth=1)
        axes.scatter(values, range(len(rows)), s=26, color=colors, zorder=3)
        for height_index, (row, value) in enumerate(zip(rows, values, strict=True)):
            axes.annotate(
                percent(row.metrics[metric]),
                (value, height_index),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                size=8,
                weight="bold" if row.name == FINAL_ROW else "normal",
            )
        span = max(values) - min(values) or 1
        axes.set_xlim(min(values) - 0.06 * span, max(values) + 0.3 * span)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_yticks(range(len(rows)), [shorten(row.name) for row in rows])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_title(f"{METRIC_NAMES[metric]}, %")
    return figure


def _trained(evaluation: Evaluation) -> list[EvaluationRow]:
    """Without the baseline, which is so far off that the others would fall together."""
    return [row for row in evaluation.rows if row.family != "baseline"]


@styled
def class_figure(evaluation: Evaluation) -> Figure:
    """Average precision of each class: a bar for the ensemble, a dot for the best single member."""
    final = evaluation.row(FINAL_ROW)
    assert final is not None
    values = 100 * np.array(final.class_average_precision)
    order = np.argsort(values, kind="stable")
    if len(order) > MAX_NAMED_CLASSES:
        half = MAX_NAMED_CLASSES // 2
        order = np.concatenate([order[:half], order[-half:]])
    positions = range(len(order))
    figure = new_figure(HALF_WIDTH_INCHES, max(2.2, 0.8 + 0.24 * len(order)))
    axes = tidy(figure.add_subplot(), grid="x")
    axes.barh(positions, values[order], height=0.62, color=ACCENT)
    single = [c.row for c in contenders(evaluation) if c.title == BEST_SINGLE]
    others = 100 * np.array(single[0].class_average_precision if single else [])
    if len(others) == len(values):
        axes.scatter(others[order], positions, s=30, color="#e69f00", edgecolor=PAPER, zorder=3)
    axes.set_yticks(positions, [shorten(evaluation.class_names[i]) for i in order])
    axes.set(xlabel="average precision, %", xlim=(0, 100), ylim=(-0.6, len(order) - 0.4))
    return figure


@styled
def confusion_figure(evaluation: Evaluation) -> Figure:
    """Videos by true class (row) and predicted class (column); with numbers if they fit."""
    counts = np.array(evaluation.confusion, dtype=np.int64)
    num_classes = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    is_named = num_classes <= MAX_NAMED_CLASSES
    side = max(3.4, 1.4 + 0.24 * num_classes) if is_named else HALF_WIDTH_INCHES
    figure = new_figure(HALF_WIDTH_INCHES, min(side, 8))
    axes = tidy(figure.add_subplot(), grid="none")
    shades = ListedColormap([(*to_rgb(ACCENT), opacity) for opacity in np.linspace(0, 1, 101)])
    axes.pcolormesh(shares, cmap=shades, vmin=0, vmax=1, rasterized=not is_named)
    axes.set(xlabel="predicted", ylabel="true", aspect="equal")
    axes.invert_yaxis()
    if not is_named:
        return figure
    centers, names = np.arange(num_classes) + 0.5, [shorten(n) for n in evaluation.class_names]
    axes.set_xticks(centers, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(centers, names)
    if num_classes <= MAX_NAMED_CLASSES // 2:
        for (row, column), count in np.ndenumerate(counts):
            color = PAPER if shares[row, column] > 0.55 else INK if count else MUTED
            place = (column + 0.5, row + 0.5)
            axes.annotate(str(count), place, ha="center", va="center", size=8.5, color=color)
    return figure


@styled
def weights_figure(evaluation: Evaluation) -> Figure:
    """A panel for each set of learned weights, with the uniform mean for comparison."""
    weights = evaluation.weights
    num_columns = min(3, len(weights))
    num_rows = -(-len(weights) // num_columns)
    most = max(len(entry.members) for entry in weights)
    figure = new_figure(FULL_WIDTH_INCHES, num_rows * (0.75 + 0.21 * most))
    for position, entry in enumerate(weights):
        _draw_weights(figure.add_subplot(num_rows, num_columns, position + 1), entry, room=most)
    return figure


def _draw_weights(axes: Axes, entry: FusionWeights, *, room: int) -> None:
    tidy(axes, grid="x")
    positions = range(len(entry.members))
    axes.barh(positions, entry.weights, height=0.62, color=ACCENT)
    axes.axvline(sum(entry.weights) / len(entry.weights), color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(positions, [shorten(name) for name in entry.members])
    # Panels with fewer members get bars as thick as those with more.
    axes.set_ylim(max(room, 3) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(shorten(entry.title, 40))
