from io import StringIO

from rich.console import Console
from rich.table import Table

from tfn_jobs.evaluation import Evaluation, EvaluationRow, Family
from tfn_jobs.result_table import (
    CONSOLE_COLUMNS,
    Cell,
    contenders,
    percent,
    result_tables,
    rows_for_console,
)


def row(name: str, family: Family, **metrics: float) -> EvaluationRow:
    return EvaluationRow(name=name, family=family, stage_key="0", metrics=metrics)


def evaluation(*rows: EvaluationRow) -> Evaluation:
    return Evaluation(
        subset="validation",
        num_videos=3,
        num_missing=0,
        tious=[0.5, 0.75],
        class_names=["jump", "swim"],
        confusion=[[1, 0], [1, 1]],
        rows=list(rows),
        weights=[],
        detections_hash="0",
    )


SAMPLE = evaluation(
    row("classifier/a", "classifier", top1=0.5, map_average=0.31),
    row("classifier/b", "classifier", top1=0.75, map_average=0.29),
    row("bmn/mean", "bmn", ar_at_100=0.6, auc=0.4, map_average=0.30),
    row("fusion/detections", "fusion", top1=0.75, ar_at_100=0.7, auc=0.5, map_average=0.33),
    row("fusion/detections (mean)", "fusion", top1=0.7, map_average=0.32),
    row("untrained", "baseline", top1=0.1, map_average=0.001),
)


def test_percent() -> None:
    assert percent(0.61342) == "61.34"
    assert percent(1) == "100.00"


def test_contenders_are_the_ensemble_and_what_it_has_to_beat() -> None:
    found = [(entry.title, entry.row.name, entry.mean_ap) for entry in contenders(SAMPLE)]
    assert found == [
        ("Fused ensemble", "fusion/detections", 0.33),
        ("Uniform mean", "fusion/detections (mean)", 0.32),
        ("Best single member", "classifier/a", 0.31),
        ("Untrained", "untrained", 0.001),
    ]


def test_contenders_that_were_not_measured_are_left_out() -> None:
    assert contenders(evaluation(row("fusion/detections", "fusion", top1=0.5))) == []


def test_a_table_has_the_columns_that_its_rows_have() -> None:
    tables = {table.title: table for table in result_tables(SAMPLE)}
    assert list(tables) == ["Fusion and baselines", "Classifiers", "Proposal networks (BMN)"]
    assert tables["Classifiers"].columns == ("top-1", "mAP")
    assert tables["Proposal networks (BMN)"].columns == ("AR@100", "AUC", "mAP")


def test_the_best_of_a_column_is_marked_and_gaps_are_dashes() -> None:
    tables = {table.title: table for table in result_tables(SAMPLE)}
    first, second = tables["Classifiers"].rows
    assert first.cells == (Cell("50.00", False), Cell("31.00", True))
    assert second.cells == (Cell("75.00", True), Cell("29.00", False))
    untrained = tables["Fusion and baselines"].rows[-1]
    assert untrained.cells[1] == Cell("–", False)


def test_alone_nothing_is_the_best() -> None:
    tables = {table.title: table for table in result_tables(SAMPLE)}
    assert not any(cell.is_best for cell in tables["Proposal networks (BMN)"].rows[0].cells)


def test_ties_as_printed_are_all_the_best() -> None:
    sample = evaluation(row("a", "bmn", auc=0.500001), row("b", "bmn", auc=0.500002))
    assert [entry.cells[0].is_best for entry in result_tables(sample)[0].rows] == [True, True]


def test_console_rows_by_hand() -> None:
    rows = rows_for_console(SAMPLE)
    assert CONSOLE_COLUMNS == ("name", "top-1", "AR@100", "AUC", "mAP")
    assert rows[3] == (
        "fusion/detections",
        "[bold]75.00[/bold]",
        "[bold]70.00[/bold]",
        "[bold]50.00[/bold]",
        "[bold]33.00[/bold]",
    )
    assert rows[2] == ("bmn/mean", "–", "60.00", "40.00", "30.00")


def test_console_prints_a_name_that_looks_like_markup() -> None:
    table = Table(*CONSOLE_COLUMNS)
    for entry in rows_for_console(evaluation(row("bmn/[red]x", "bmn", auc=0.5))):
        table.add_row(*entry)
    console = Console(width=80, file=StringIO())
    console.print(table)
    assert isinstance(console.file, StringIO) and "bmn/[red]x" in console.file.getvalue()
