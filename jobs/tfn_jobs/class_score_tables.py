"""CLASS_SCORES of several members as one table, and one member's logits in a given order."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from tfn_platform.feature_index import list_matrix
from tfn_platform.parquet import read_table
from tfn_platform.store import StageFolder
from tfn_platform.tables import CLASS_SCORES


def class_score_rows(video_ids: Sequence[str], logits: Mapping[str, torch.Tensor]) -> pa.Table:
    """Member -> logits [V, K] of the videos, as a table."""
    num_classes = next(iter(logits.values())).shape[1]
    flat = np.concatenate([values.float().numpy().ravel() for values in logits.values()])
    columns = {
        "video_id": list(video_ids) * len(logits),
        "member": [member for member in logits for _ in video_ids],
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(flat), num_classes),
    }
    return pa.table(columns, schema=CLASS_SCORES.sized(num_classes))


def logits_of(
    folder: StageFolder, video_ids: Sequence[str], *, member: str | None = None
) -> torch.Tensor:
    """Logits [V, K] of the videos, in their order, by a stage's only member or the one named."""
    table, _ = read_table(folder, CLASS_SCORES)
    members = table["member"].to_pylist()
    names = table["video_id"].to_pylist()
    position = {
        name: row
        for row, (name, m) in enumerate(zip(names, members, strict=True))
        if member is None or m == member
    }
    values = list_matrix(table["logits"])
    return torch.from_numpy(values[[position[video_id] for video_id in video_ids]])
