"""The `tfn` command: help, exit codes, and errors that a user can act on."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tfn_jobs import cli
from tfn_platform.errors import StageError

COMMANDS = [
    "run",
    "plan",
    "status",
    "report",
    "ui",
    "submit",
    "evaluate",
    "data",
    "data synthesize",
]


@pytest.fixture
def spec_path(spec_data: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(spec_data))
    return path


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and output of typer's part, which usage errors come from."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def call_main(
    *arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """As a shell would: exit code, standard output and standard error."""
    monkeypatch.setattr("sys.argv", ["tfn", *(str(argument) for argument in arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str) -> None:
    code, printed = call(*command.split(), "--help")
    assert code == 0
    assert "Usage:" in printed and "--help" in printed
    if command == "":
        for name in (name for name in COMMANDS if " " not in name):
            assert name in printed
    elif command in ("run", "plan", "status", "report", "submit"):
        assert "--root" in printed and "--set" in printed


def test_usage_errors_exit_with_2(tmp_path: Path) -> None:
    assert call("run")[0] == 2
    assert call("walk")[0] == 2
    assert call("evaluate", "--task", "guessing")[0] == 2
    code, printed = call("submit")
    assert code == 2 and "--follow" in printed
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, printed = call("data", "synthesize", tmp_path / "full")
    # typer draws a box around it, in which lines break anywhere.
    assert code == 2 and "not empty" in " ".join(printed.replace("│", " ").split())


def test_plan_of_a_new_root(spec_path: Path, tmp_path: Path) -> None:
    code, printed = call("plan", spec_path, "--root", tmp_path / "root")
    assert code == 0, printed
    assert "16 of 16 stages would run" in printed and "never made" in printed
    overridden = call("plan", spec_path, "--root", tmp_path / "root", "--set", "until=propose")
    assert "11 of 11 stages would run" in overridden[1]


def test_a_wrong_spec_exits_with_2(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", spec_path, "--set", "bmns.d8.num_bins=0", "--set", "seed=nine"]
    code, out, err = call_main(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {spec_path}: 2 problems\n")
    assert "bmns[0].num_bins:" in err and "seed:" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read"), ("a: [1", "is not valid YAML"), ("- 1", "must hold a mapping")],
)
def test_an_unreadable_spec_exits_with_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    expected: str,
) -> None:
    path = tmp_path / "other.yaml"
    if content is not None:
        path.write_text(content)
    code, _, err = call_main("run", path, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and expected in err and "Traceback" not in err


def test_an_unfinished_pipeline_exits_with_1(
    spec_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["report", spec_path, "--root", tmp_path / "root"]
    code, _, err = call_main(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1 and "has not finished" in err and "Traceback" not in err


def test_a_failing_stage_exits_with_1(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StageError("bmn/d8 could not finish")

    monkeypatch.setattr("tfn_jobs.run.run_and_publish", fail)
    code, _, err = call_main("run", spec_path, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, err) == (1, "error: bmn/d8 could not finish\n")


def test_evaluate_prints_and_writes_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotation = {"label": "jump", "segment": [1.0, 3.0]}
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    video = {"subset": "validation", "annotations": [annotation]}
    truth.write_text(json.dumps({"database": {"one": video}}))
    found.write_text(json.dumps({"results": {"one": [{**annotation, "score": 0.5}]}}))
    files = ["--ground-truth", truth, "--predictions", found, "--task", "detection"]
    code, out, _ = call_main(
        "evaluate", *files, "--json", tmp_path / "out.json", monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 0
    assert re.search(r"^average_map\s+1\.0000$", out, re.MULTILINE)
    assert json.loads((tmp_path / "out.json").read_text())["figures"]["average_map"] == 1.0
    code, _, err = call_main(
        "evaluate", *files, "--subset", "testing", monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 2 and "has no subset 'testing'" in err and "Traceback" not in err


def test_synthesize_gives_the_same_bytes_again(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        sizes = ["--num-training", "1", "--num-validation", "1", "--seed", "3"]
        code, printed = call("data", "synthesize", tmp_path / name, *sizes)
        assert code == 0 and "2 videos" in printed
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        assert len(files) == 3
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3
