"""SIGKILL in the middle of an extraction: decoders, actors, Ray itself, the driver, or all of them.

Whatever dies, the same command again ends with the same bytes. By default three schedules of kills
on few videos; with `-m kill` two dozen on 210.
"""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extraction_kills import TARGETS, KilledExtraction, schedule
from tests.tfn_process import REPOSITORY, Tfn, kill_session
from tfn_platform.parquet import read_table
from tfn_platform.store import Store
from tfn_platform.tables import QUARANTINE, VIDEOS

SPEC = REPOSITORY / "tests" / "data" / "extraction.yaml"
FEW = ("dataset.num_training=40", "dataset.num_validation=5", "dataset.damaged_share=0.14")
NUM_FEW, NUM_MANY = 45, 210
FEW_KILLS, MANY_KILLS = 2, 3
QUICK_SEEDS = (2, 3, 4)
ALL_SEEDS = range(24)


def undisturbed(tfn: Tfn, root: Path, *overrides: str) -> Path:
    """A root whose extraction nobody disturbed."""
    tfn("run", SPEC, "--root", root, *[word for text in overrides for word in ("--set", text)])
    return root


@pytest.fixture(scope="module")
def few(tfn: Tfn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Do not change it."""
    yield undisturbed(tfn, tmp_path_factory.mktemp("few") / "root", *FEW)


@pytest.fixture(scope="module")
def many(tfn: Tfn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Do not change it."""
    yield undisturbed(tfn, tmp_path_factory.mktemp("many") / "root")


def extracted(root: Path) -> dict[str, bytes]:
    """All that the extraction has left, but for the record of its commit."""
    (folder,) = (root / "stages" / "extract").glob("*")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "done.json"
    }


def features_hash(root: Path) -> str:
    (done,) = (root / "stages" / "extract").glob("*/done.json")
    found = Store.open(str(done.parent)).read_json("done.json")["figures"]["features_hash"]
    assert isinstance(found, str)
    return found


def check_killed(tfn: Tfn, whole: Path, root: Path, *, seed: int, num: int) -> None:
    """Go on from what comes before the extraction, and compare in the end."""
    shutil.copytree(whole, root)
    shutil.rmtree(root / "stages" / "extract")
    overrides = FEW if num == NUM_FEW else ()
    num_kills = FEW_KILLS if num == NUM_FEW else MANY_KILLS
    kills = schedule(seed, num_videos=num, num_kills=num_kills)
    KilledExtraction(tfn, root, SPEC, overrides).run(kills)
    assert features_hash(root) == features_hash(whole)
    assert extracted(root) == extracted(whole)


def test_schedules_reach_every_target() -> None:
    """Each kind of kill comes often in the two dozen, and the quick ones are three kinds."""
    many = [schedule(seed, num_videos=NUM_MANY, num_kills=MANY_KILLS) for seed in ALL_SEEDS]
    counts = Counter(kill.target for kills in many for kill in kills)
    assert all(counts[target] >= 4 for target in TARGETS), counts
    quick = [schedule(seed, num_videos=NUM_FEW, num_kills=FEW_KILLS) for seed in QUICK_SEEDS]
    assert {kill.target for kills in quick for kill in kills} >= {TARGETS[s] for s in QUICK_SEEDS}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", QUICK_SEEDS)
def test_killed_extraction_goes_on(tfn: Tfn, few: Path, tmp_path: Path, seed: int) -> None:
    check_killed(tfn, few, tmp_path / "root", seed=seed, num=NUM_FEW)


@pytest.mark.kill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", ALL_SEEDS)
def test_many_kills(tfn: Tfn, many: Path, tmp_path: Path, seed: int) -> None:
    check_killed(tfn, many, tmp_path / "root", seed=seed, num=NUM_MANY)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lost", ["all", pytest.param("some", marks=pytest.mark.kill)])
def test_one_of_three_nodes_dies(tfn: Tfn, few: Path, tmp_path: Path, lost: str) -> None:
    """A machine goes with some or all actors and what they held, and does not come back.

    Two of five tries hung: actors of a round that was given up kept the other machines' CPUs.
    """
    root, log = tmp_path / "root", tmp_path / "log"
    shutil.copytree(few, root)
    shutil.rmtree(root / "stages" / "extract")
    impatient = ("extraction.stall_seconds=20", "extraction.patience_seconds=45")
    command = [sys.executable, "-m", "tests.three_nodes", lost, SPEC, root, *FEW, *impatient]
    # A folder of its own: what is left of a cluster there would be taken for one that runs.
    with tempfile.TemporaryDirectory(prefix="tfn-", dir="/tmp") as own, log.open("wb") as stream:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=REPOSITORY,
            env={**tfn.environment, "TMPDIR": own},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert process.wait(500) == 0, log.read_text()
        finally:
            kill_session(process)
    printed = log.read_text()
    assert "nodes alive: 2" in printed and f"features hash: {features_hash(few)}" in printed
    assert extracted(root) == extracted(few)


@pytest.mark.slow
def test_every_video_is_there_once_or_in_quarantine(few: Path) -> None:
    (prepared,) = (few / "stages" / "prepare").glob("*")
    store = Store.open(str(few))
    folder = store.stage("prepare", prepared.name)
    videos, _ = read_table(folder, VIDEOS)
    unusable, _ = read_table(folder, QUARANTINE)
    assert videos.num_rows + unusable.num_rows == NUM_FEW
    (made,) = (few / "stages" / "extract").glob("*")
    extracted_folder = store.stage("extract", made.name)
    late, _ = read_table(extracted_folder, QUARANTINE)
    figures = extracted_folder.read_done()["figures"]
    assert figures["videos"] + late.num_rows == videos.num_rows
    assert figures["quarantined"] == late.num_rows > 0
