"""Folds of the held-out videos: what is fitted on the others is used on a fold."""

from collections.abc import Sequence

import numpy as np


def assign_folds(video_ids: Sequence[str], num_folds: int, *, seed: int) -> dict[str, int]:
    """Give each video a fold, evenly and at random; the same for the same set of videos.

    Raises:
        ValueError: there are fewer videos than folds.
    """
    if len(video_ids) < num_folds:
        raise ValueError(
            f"fusion.num_folds: must be at most the {len(video_ids)} usable videos of the "
            f"evaluation subset, got {num_folds}"
        )
    ordered = sorted(video_ids)
    order = np.random.default_rng(seed).permutation(len(ordered))
    return {ordered[position]: rank % num_folds for rank, position in enumerate(order)}
