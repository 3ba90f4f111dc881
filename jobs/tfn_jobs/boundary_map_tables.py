"""BOUNDARY_MAPS: a member's maps as rows, and the maps of one part of the table."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import torch

from tfn_models.boundary_maps import BoundaryMaps, pack_valid_cells, unpack_valid_cells
from tfn_platform.parquet import read_part
from tfn_platform.store import StageFolder
from tfn_platform.tables import BOUNDARY_MAPS

MAP_NAMES = ("start", "end", "classification", "regression")
VIDEOS_PER_PART = 256
"""All members cut the same videos into the same parts, so that a part can be fused on its own."""


def boundary_map_rows(
    member: str, video_ids: Sequence[str], maps: Sequence[BoundaryMaps]
) -> pa.Table:
    """Batches of a member's maps, which hold the videos in their order, as a table."""

    def column(name: str, *, is_map: bool) -> list[object]:
        values = torch.cat([getattr(batch, name) for batch in maps]).float().cpu()
        return list((pack_valid_cells(values) if is_map else values).numpy())

    rows = {
        "video_id": list(video_ids),
        "member": [member] * len(video_ids),
        "num_bins": [maps[0].start.shape[1]] * len(video_ids),
        "start": column("start", is_map=False),
        "end": column("end", is_map=False),
        "classification": column("classification", is_map=True),
        "regression": column("regression", is_map=True),
    }
    return pa.table(rows, schema=BOUNDARY_MAPS.schema)


def maps_of_part(folder: StageFolder, part: int) -> Iterator[tuple[str, BoundaryMaps]]:
    """The video_id and the maps (B = 1) of each video of a part."""
    for row in read_part(folder, BOUNDARY_MAPS, part).to_pylist():
        yield (
            row["video_id"],
            BoundaryMaps(
                start=torch.tensor(row["start"])[None],
                end=torch.tensor(row["end"])[None],
                classification=unpack_valid_cells(torch.tensor(row["classification"]))[None],
                regression=unpack_valid_cells(torch.tensor(row["regression"]))[None],
            ),
        )
