"""Every kind of file that is no usable video, among good ones, from the manifest to the features.

The whole command: what is of no use ends in QUARANTINE with its reason, nothing hangs, and the exit
code says whether there was too much of it.
"""

import csv
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml

from tests.damaged_videos import plant_damaged, plant_usable
from tests.tfn_process import REPOSITORY, TIMEOUT_SECONDS, Tfn, kill_session
from tfn_jobs.backbones import build_network, pick_architecture
from tfn_platform.checkpoint import save_torch
from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.feature_index import FeatureReader
from tfn_platform.parquet import read_parts, read_table
from tfn_platform.quarantine_reason import QuarantineReason as Reason
from tfn_platform.store import StageFolder, Store
from tfn_platform.tables import DAMAGED, QUARANTINE

FAULTY_READER = REPOSITORY / "tests" / "faulty_reader"
"""Makes the reader hang, or crash, on files of such names."""
FAULTY = {
    "hang.mp4": Reason.TIMED_OUT,
    "crash.mp4": Reason.DECODER_CRASHED,
    "hang_once.mp4": None,
    "crash_once.mp4": None,
}
SPEC = {
    "name": "damaged",
    "until": "extract",
    "clips": {"frames_per_clip": 8, "short_side": 32, "crop": "center"},
    "extraction": {"stall_seconds": 6, "patience_seconds": 300},
}


class Planted:
    """Files on a disk, a manifest of them, and what each is to become."""

    def __init__(self, folder: Path, real: Path | None) -> None:
        """Plant them; `real` is a folder of sound videos."""
        config = SyntheticConfig(num_training=1, num_validation=0, seed=3)
        good = render_video(config, 0).data
        damaged: Mapping[str, Reason] = plant_damaged(folder / "damaged", good=good)
        usable = plant_usable(folder / "usable", good=good)
        (folder / "faulty").mkdir()
        for name in FAULTY:
            (folder / "faulty" / name).write_bytes(good)
        self.real = sorted(path.name for path in real.iterdir()) if real else []
        self.reasons = {
            **{f"damaged/{name}": reason for name, reason in damaged.items()},
            **{f"faulty/{name}": reason for name, reason in FAULTY.items() if reason},
        }
        self.good = {f"usable/{name}" for name in usable} | {f"real/{name}" for name in self.real}
        self.good |= {f"faulty/{name}" for name, reason in FAULTY.items() if not reason}
        self.manifest = folder / "manifest.csv"
        with self.manifest.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["video_id", "path"])
            for video_id in sorted([*self.reasons, *self.good]):
                place = real if video_id.startswith("real/") else folder / video_id.split("/")[0]
                assert place is not None
                writer.writerow([video_id, place / video_id.split("/", 1)[1]])


def write_spec(folder: Path, manifest: Path, **extraction: object) -> Path:
    torch.manual_seed(0)
    state = build_network(pick_architecture("slowfast_tiny")).state_dict()
    save_torch(Store.open(str(folder)), "tiny.pt", state)
    spec = {
        **SPEC,
        "dataset": {"format": "videos", "videos": str(manifest), "max_quarantined_share": 0.95},
        "backbone": {
            "architecture": "slowfast_tiny",
            "checkpoint": str(folder / "tiny.pt"),
            "finetune": None,
        },
    }
    spec["extraction"] = {**SPEC["extraction"], **extraction}  # type: ignore[dict-item]
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def with_faulty_reader(tfn: Tfn) -> Tfn:
    search_path = os.pathsep.join([str(FAULTY_READER), os.environ.get("PYTHONPATH", "")])
    return Tfn(tfn.folder, {**tfn.variables, "PYTHONPATH": search_path})


def exit_code(tfn: Tfn, *arguments: object, log: Path) -> int:
    process: subprocess.Popen[bytes] = tfn.start(*arguments, log=log)
    try:
        return process.wait(TIMEOUT_SECONDS)
    finally:
        kill_session(process)


def stage_folder(root: Path, name: str) -> StageFolder:
    (made,) = (root / "stages" / name).glob("*")
    return Store.open(str(root)).stage(name, made.name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kind_of_damage_is_told_apart(
    tfn: Tfn, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared = os.environ.get("TFN_SHARED_DIR", str(REPOSITORY.parent / "shared"))
    real = Path(shared) / "data" / "videos"
    planted = Planted(tmp_path / "files", real if real.is_dir() else None)
    assert len(planted.reasons) >= 20
    spec, root, log = write_spec(tmp_path, planted.manifest), tmp_path / "root", tmp_path / "log"
    faulty = with_faulty_reader(tfn)
    few = ("--set", "dataset.max_quarantined_share=0.05")
    assert exit_code(faulty, "run", spec, "--root", root, *few, log=log) == 1, log.read_text()
    assert "more than the share of 0.05" in log.read_text()
    assert exit_code(faulty, "run", spec, "--root", root, log=log) == 0, log.read_text()
    prepared, extracted = stage_folder(root, "prepare"), stage_folder(root, "extract")
    rows = [
        *read_table(prepared, QUARANTINE)[0].to_pylist(),
        *read_table(extracted, QUARANTINE)[0].to_pylist(),
    ]
    assert {row["video_id"]: row["reason"] for row in rows} == {
        video_id: str(reason) for video_id, reason in planted.reasons.items()
    }
    assert len(rows) == len(planted.reasons)
    attempts = {row["video_id"]: row["attempts"] for row in rows}
    transient = {v for v, reason in planted.reasons.items() if reason.is_transient}
    # Two in the run that stopped, two in the run that went on.
    assert {v: n for v, n in attempts.items() if n > 1} == dict.fromkeys(transient, 4)
    reader = FeatureReader(extracted)
    assert set(reader.video_ids) == planted.good
    assert read_parts(extracted, DAMAGED)[0].num_rows == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_can_be_used_is_used_and_listed(tfn: Tfn, tmp_path: Path) -> None:
    planted = Planted(tmp_path / "files", None)
    spec = write_spec(tmp_path, planted.manifest, damage="salvage")
    root = tmp_path / "root"
    with_faulty_reader(tfn)("run", spec, "--root", root)
    extracted = stage_folder(root, "extract")
    damaged = read_parts(extracted, DAMAGED)[0].to_pylist()
    used = {row["video_id"]: row["reason"] for row in damaged}
    expected = {v: str(r) for v, r in planted.reasons.items() if r.is_recoverable}
    assert used.items() <= expected.items() and len(used) >= 5
    assert set(FeatureReader(extracted).video_ids) == planted.good | set(used)
