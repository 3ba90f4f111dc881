"""The tree is what the README, the import contracts and the wheel say it is."""

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tfn_jobs.import_spec import ImportSpec
from tfn_jobs.pipeline_spec import PipelineSpec
from tfn_jobs.spec_fields import RUNS_ELSEWHERE
from tfn_platform.spec import load_spec

PACKAGES = ("platform/tfn_platform", "tfn_models", "jobs/tfn_jobs")
TOP_LEVEL = {
    "README.md", "pyproject.toml", "cluster.yaml", "Makefile", "LICENSE", "CHANGELOG.md",
    "CONTRIBUTING.md", "constraints.txt", "platform", "tfn_models", "jobs", "tests",
}  # fmt: skip
REPOSITORY = Path(__file__).resolve().parent.parent
SPECS = sorted((REPOSITORY / "jobs").glob("*.yaml"))


def package_files(repository: Path) -> list[str]:
    """Every Python file of the three packages, as a path from the repository's root."""
    files = [path for package in PACKAGES for path in (repository / package).rglob("*.py")]
    return sorted(path.relative_to(repository).as_posix() for path in files)


def readme_tree(repository: Path) -> list[str]:
    """The paths in README's file tree: before two spaces, several parted by commas."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (repository / "README.md").read_text(), re.S | re.M)
    trees = [block for block in blocks if "platform/tfn_platform/" in block]
    assert len(trees) == 1, f"README.md must hold one file tree, found {len(trees)}"
    rows = [re.split(r"\s{2,}", line)[0] for line in trees[0].splitlines() if line.strip()]
    return [path.strip() for row in rows for path in row.split(",")]


def summarised_folders(tree: list[str]) -> list[str]:
    """The folders of which the tree says `folder/…`."""
    return [path.removesuffix("…") for path in tree if path.endswith("/…")]


@pytest.mark.parametrize("folder", ["platform", "jobs"])
def test_plain_folders_are_no_packages(repository: Path, folder: str) -> None:
    """A package `platform` shadows the standard library's; a job submitted from it never starts."""
    assert not (repository / folder / "__init__.py").exists()


def test_standard_library_wins_in_the_root(repository: Path) -> None:
    command = [sys.executable, "-c", "import platform; print(platform.system())"]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert result.stdout.strip()


def test_import_contracts_hold(repository: Path) -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    search_path = os.pathsep.join(str(repository / folder) for folder in ("platform", "jobs", ""))
    result = subprocess.run(
        [str(lint_imports), "--no-cache"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": search_path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_top_level_holds_what_the_design_names(repository: Path) -> None:
    ignored = [
        line.strip("/")
        for line in (repository / ".gitignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    entries = {path.name for path in repository.iterdir() if not path.name.startswith(".")}
    unexpected = {
        name
        for name in entries - TOP_LEVEL
        if not any(fnmatch(name, pattern) for pattern in ignored)
    }
    assert not unexpected
    assert not TOP_LEVEL - entries


def test_every_path_in_readmes_tree_exists(repository: Path) -> None:
    tree = readme_tree(repository)
    missing = [path for path in tree if not (repository / path.removesuffix("…")).exists()]
    assert not missing


def test_readmes_tree_lists_every_file(repository: Path) -> None:
    tree = readme_tree(repository)
    folders = summarised_folders(tree)
    expected = [name for name in package_files(repository) if not name.endswith("__init__.py")]
    expected += [path.relative_to(repository).as_posix() for path in SPECS]
    unlisted = [
        name
        for name in expected
        if name not in tree and not any(name.startswith(folder) for folder in folders)
    ]
    assert not unlisted


def test_each_package_has_an_init(repository: Path) -> None:
    """A folder without one is left out by tools that look for packages."""
    folders = {(repository / name).parent for name in package_files(repository)}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_test_tree_mirrors_the_code(repository: Path) -> None:
    """tests/tfn_models/bmn/test_loss.py tests bmn/loss.py; test_bmn.py would test the folder."""
    orphans = []
    for package in PACKAGES:
        source = repository / package
        tests = repository / "tests" / source.name
        for test in tests.rglob("test_*.py"):
            folder = source / test.parent.relative_to(tests)
            name = test.stem.removeprefix("test_")
            if name != folder.name and not (folder / f"{name}.py").exists():
                orphans.append(test.relative_to(repository).as_posix())
    assert not orphans


def test_the_demo_is_shipped() -> None:
    assert "demo.yaml" in [path.name for path in SPECS]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_shipped_spec_loads(path: Path) -> None:
    """Places in it are examples, as on a cluster: they are not looked at here."""
    kind = ImportSpec if path.name == "import-features.yaml" else PipelineSpec
    load_spec(kind, path, context={RUNS_ELSEWHERE: True})


def test_wheel_ships_every_spec(repository: Path) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    shipped = {f"jobs/{path.name}": f"tfn_jobs/specs/{path.name}" for path in SPECS}
    assert wheel["force-include"] == shipped
    assert wheel["packages"] == list(PACKAGES)
