"""What all backbones share: settings, the check of clips, the mean over time and space."""

import itertools

import pytest
import torch

from tfn_models.backbones.i3d_inception import I3dInceptionConfig, build_i3d_inception
from tfn_models.backbones.interface import global_mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_global_mean_equals_a_loop(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    mean = global_mean(x)
    assert (mean.dtype, list(mean.shape)) == (dtype, [2, 3])
    for b, c in itertools.product(range(2), range(3)):
        total = sum(float(x[b, c, t, h, w]) for t in range(2) for h in range(3) for w in range(4))
        assert float(mean[b, c]) == pytest.approx(total / 24, abs=1e-6)


def test_global_mean_of_half_precision_is_not_rounded_to_it() -> None:
    x = torch.tensor([1.0, 1.0, 1.0, 1.0078125], dtype=torch.bfloat16).reshape(1, 1, 1, 2, 2)
    mean = global_mean(x)
    assert mean.dtype == torch.float32
    assert float(mean) == 1 + 0.0078125 / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"std": (0.2, 0.0, 0.2)}, "std positive"),
        ({"mean": (0.5,)}, "three numbers"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        I3dInceptionConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 8, 32, 32), (1, 1, 8, 32, 32), (1, 8, 3, 32, 32)])
def test_wrong_clips_are_refused(shape: tuple[int, ...]) -> None:
    model = build_i3d_inception(I3dInceptionConfig(channel_divisor=8))
    with pytest.raises(ValueError, match=r"clips must be \[B, 3, L, H, W\], got"):
        model(torch.zeros(shape))
