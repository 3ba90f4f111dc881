"""The learned weights of a fusion, as a JSON file of its stage."""

from collections.abc import Mapping, Sequence

import torch

from tfn_jobs.evaluation import FusionWeights
from tfn_platform.store import StageFolder

FILE_NAME = "weights.json"


def write_weights(
    folder: StageFolder, learned: Mapping[str, tuple[Sequence[str], torch.Tensor]]
) -> None:
    """Write title -> (names of M members, their weights [M])."""
    entries = [
        FusionWeights(title=title, members=list(members), weights=weights.tolist()).model_dump()
        for title, (members, weights) in learned.items()
    ]
    folder.store.write_json(folder.file(FILE_NAME), entries)


def read_weights(folder: StageFolder) -> list[FusionWeights]:
    """Read them back."""
    entries = folder.store.read_json(folder.file(FILE_NAME))
    return [FusionWeights.model_validate(entry) for entry in entries]
