import pytest
import torch

from tfn_models.nms import Kept


def test_fields_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        Kept(indices=torch.zeros(2, dtype=torch.int64), scores=torch.zeros(3))
    with pytest.raises(ValueError, match="indices must be int64, got torch.int32"):
        Kept(indices=torch.zeros(2, dtype=torch.int32), scores=torch.zeros(2))
