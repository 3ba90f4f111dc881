"""Resizing by matrices, against loops over pixels."""

import numpy as np
import pytest
import torch

from tfn_platform.device_resize import DeviceResize, area_weights, linear_weights


def area_average(values: np.ndarray, num_out: int) -> np.ndarray:
    """Cut every pixel into as many equal pieces as there are output pixels; average the pieces."""
    return np.repeat(values, num_out).reshape(num_out, len(values)).mean(axis=1)


def interpolate(values: np.ndarray, num_out: int) -> list[float]:
    """Read between the two pixels whose centres lie around each output pixel's."""
    centers = np.arange(len(values)) + 0.5
    where = (np.arange(num_out) + 0.5) * len(values) / num_out
    return [float(np.interp(place, centers, values)) for place in where]


@pytest.mark.parametrize(("num_in", "num_out"), [(10, 5), (7, 3), (9, 8), (5, 1), (340, 85)])
def test_shrinking_averages_areas(num_in: int, num_out: int) -> None:
    values = np.random.default_rng(0).uniform(0, 255, num_in)
    made = area_weights(num_in, num_out).double().numpy() @ values
    np.testing.assert_allclose(made, area_average(values, num_out), rtol=1e-5)


@pytest.mark.parametrize(("num_in", "num_out"), [(5, 10), (3, 7), (8, 9), (1, 5), (6, 6)])
def test_enlarging_interpolates(num_in: int, num_out: int) -> None:
    values = np.random.default_rng(0).uniform(0, 255, num_in)
    made = linear_weights(num_in, num_out).double().numpy() @ values
    np.testing.assert_allclose(made, interpolate(values, num_out), rtol=1e-5)


def test_frames_become_images_of_the_first_frames_size() -> None:
    resize = DeviceResize(4)
    frames = torch.randint(0, 256, (2, 3, 12, 18), dtype=torch.uint8)
    images = resize(frames)
    assert images.shape == (2, 4, 6, 3) and images.dtype == torch.uint8
    assert images.is_contiguous()
    # An output pixel covers 3 x 3 pixels; here of frame 1, channel 2.
    corner = frames[1, 2, :3, :3].double().mean()
    assert abs(images[1, 0, 0, 2] - corner) < 0.51
    assert resize(torch.zeros(1, 3, 20, 20, dtype=torch.uint8)).shape == (1, 4, 6, 3)


def test_the_central_square() -> None:
    frames = torch.randint(0, 256, (1, 3, 8, 20), dtype=torch.uint8)
    whole, square = DeviceResize(8)(frames), DeviceResize(8, square=True)(frames)
    assert torch.equal(whole, frames.permute(0, 2, 3, 1))
    assert torch.equal(square, whole[:, :, 6:14])


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        DeviceResize(0)
