"""A small set of published features, and specs that import it."""

from pathlib import Path
from typing import Any

import numpy as np

from tfn_jobs.import_spec import ImportSpec
from tfn_platform.spec import parse_spec


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "source": str(folder),
        "format": "npy",
        "durations": None,
        "backbone": "i3d",
        "feature_dim": 2048,
        "frame_rate": 15,
        "stride_seconds": "8/15",
        "frames_per_clip": 32,
        "alignment": "start",
        **changes,
    }


def parsed(folder: Path, **changes: Any) -> ImportSpec:
    return parse_spec(ImportSpec, settings(folder, **changes), source="test")


STRIDE = 8 / 15


def features(number: int, clips: int, *, width: int = 6) -> np.ndarray:
    rng = np.random.default_rng(number)
    return np.maximum(rng.normal(size=(clips, width)), 0).astype(np.float32)


def write_source(parent: Path) -> Path:
    """A folder of npy files of 20 videos below `parent`, and durations.csv beside it."""
    folder = parent / "features"
    folder.mkdir()
    lines = ["video_id,subset,duration_seconds"]
    for number in range(20):
        seconds = 20 + 7.3 * number
        np.save(folder / f"v{number:02d}.npy", features(number, round(seconds / STRIDE)))
        lines.append(f"v{number:02d},{'training' if number % 2 else 'validation'},{seconds}")
    (parent / "durations.csv").write_text("\n".join(lines))
    return folder


def spec(folder: Path, **changes: Any) -> Any:
    durations = str(folder.parent / "durations.csv")
    return parsed(folder, **{"feature_dim": 6, "durations": durations, **changes})
