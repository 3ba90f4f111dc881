from collections import Counter

import pytest

from tfn_jobs.folds import assign_folds

NAMES = [f"video{number}" for number in range(11)]


@pytest.mark.parametrize("num_folds", [2, 3, 5, 11])
def test_folds_are_even(num_folds: int) -> None:
    folds = assign_folds(NAMES, num_folds, seed=0)
    assert set(folds) == set(NAMES)
    sizes = Counter(folds.values())
    assert set(sizes) == set(range(num_folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_folds_depend_on_the_set_of_names_and_the_seed_only() -> None:
    assert assign_folds(NAMES, 3, seed=1) == assign_folds(NAMES[::-1], 3, seed=1)
    assert assign_folds(NAMES, 3, seed=1) != assign_folds(NAMES, 3, seed=2)


def test_too_few_videos_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fusion\.num_folds: .* 11 usable .* got 12"):
        assign_folds(NAMES, 12, seed=0)
