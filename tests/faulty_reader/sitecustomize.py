"""A reader of videos that hangs or crashes on request, for every Python that finds this file.

Put this folder on PYTHONPATH (or sys.path, which decoding processes inherit). Opening a video whose
name begins with `hang` never returns, and with `crash` it kills the process; with `hang_once` and
`crash_once` it does so the first time, which a file beside the video remembers.
"""

import os
import time
from pathlib import Path
from typing import Any

import av

_open = av.open


def _faulty_open(file: Any, *args: Any, **options: Any) -> Any:
    path = Path(str(getattr(file, "name", file)))
    fault = path.name.split("_")[0].split(".")[0]
    if fault in ("hang", "crash") and _is_due(path):
        if fault == "crash":
            os.abort()
        time.sleep(3600)
    return _open(file, *args, **options)


def _is_due(path: Path) -> bool:
    if "_once" not in path.name:
        return True
    mark = path.with_name(f".{path.name}.was_faulty")
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


av.open = _faulty_open
