"""The measured figures as tables of text, alike in the report and on the console."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.markup import escape

from tfn_jobs.evaluation import BASELINE_ROW, FINAL_ROW, Evaluation, EvaluationRow, Family

METRIC_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "ar_at_1": "AR@1",
    "ar_at_5": "AR@5",
    "ar_at_10": "AR@10",
    "ar_at_100": "AR@100",
    "auc": "AUC",
    "map_average": "mAP",
    "map_at_0.50": "mAP@0.50",
    "map_at_0.75": "mAP@0.75",
    "map_at_0.95": "mAP@0.95",
}
"""How each metric that is shown is called, in the order of the columns."""
CONSOLE_METRICS = ("top1", "ar_at_100", "auc", "map_average")
CONSOLE_COLUMNS = ("name", *(METRIC_NAMES[metric] for metric in CONSOLE_METRICS))
NOTHING = "–"
FUSED_FAMILIES: tuple[Family, ...] = ("fusion", "baseline")
UNIFORM_MEAN, BEST_SINGLE = "Uniform mean", "Best single member"
TABLES: tuple[tuple[str, tuple[Family, ...]], ...] = (
    ("Fusion and baselines", FUSED_FAMILIES),
    ("Classifiers", ("classifier",)),
    ("Proposal networks (BMN)", ("bmn",)),
    ("Refine Networks", ("refiner",)),
)


@dataclass(frozen=True)
class Cell:
    """One figure as text, and whether it is the best of its column."""

    text: str
    is_best: bool


@dataclass(frozen=True)
class ResultRow:
    """One row: its name, its kind and a cell a column."""

    name: str
    family: Family
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ResultTable:
    """The rows of one or two families, with a column for each shown metric that any of them has."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True)
class Contender:
    """Who is compared in the headline, and its row."""

    title: str
    row: EvaluationRow

    @property
    def mean_ap(self) -> float:
        """mAP, mean over thresholds, 0..1."""
        return self.row.metrics["map_average"]


def percent(fraction: float) -> str:
    """A fraction in percent, without the sign: 0.61342 is "61.34"."""
    return f"{100 * fraction:.2f}"


def result_tables(evaluation: Evaluation) -> list[ResultTable]:
    """All rows, a table for each kind of member and one for the fusion with the baselines."""
    tables = []
    for title, families in TABLES:
        rows = [row for row in evaluation.rows if row.family in families]
        if rows:
            metrics = _metrics(rows)
            columns = tuple(METRIC_NAMES[metric] for metric in metrics)
            tables.append(ResultTable(title, columns, _cells(rows, metrics)))
    return tables


def rows_for_console(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The short table under `CONSOLE_COLUMNS`, in percent.

    Texts are in rich's markup; the best of a column is bold.
    """
    return [
        (escape(row.name), *(f"[bold]{c.text}[/bold]" if c.is_best else c.text for c in row.cells))
        for row in _cells(evaluation.rows, CONSOLE_METRICS)
    ]


def contenders(evaluation: Evaluation) -> list[Contender]:
    """The whole ensemble and what it has to beat: those of them that were measured."""
    members = [row for row in evaluation.rows if row.family not in FUSED_FAMILIES]
    scored = [row for row in members if "map_average" in row.metrics]
    choices = (
        ("Fused ensemble", evaluation.row(FINAL_ROW)),
        (UNIFORM_MEAN, evaluation.row(f"{FINAL_ROW} (mean)")),
        (BEST_SINGLE, max(scored, key=lambda row: row.metrics["map_average"], default=None)),
        ("Untrained", evaluation.row(BASELINE_ROW)),
    )
    return [Contender(title, row) for title, row in choices if row and "map_average" in row.metrics]


def _metrics(rows: Iterable[EvaluationRow]) -> list[str]:
    """The metrics that any of the rows has."""
    found = {metric for row in rows for metric in row.metrics}
    return [metric for metric in METRIC_NAMES if metric in found]


def _cells(rows: Sequence[EvaluationRow], metrics: Sequence[str]) -> tuple[ResultRow, ...]:
    """The rows as text. Equal text is equally good, and alone in its column nothing is the best."""
    best = {}
    for metric in metrics:
        figures = [row.metrics[metric] for row in rows if metric in row.metrics]
        best[metric] = percent(max(figures)) if len(figures) > 1 else None
    made = []
    for row in rows:
        texts = [percent(row.metrics[m]) if m in row.metrics else NOTHING for m in metrics]
        cells = [Cell(text, text == best[m]) for text, m in zip(texts, metrics, strict=True)]
        made.append(ResultRow(row.name, row.family, tuple(cells)))
    return tuple(made)
