import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfn_models.refine.offsets import OffsetScales, decode_offsets, encode_offsets

POSITION = st.floats(-50, 500)
WIDTH = st.floats(0.1, 300)


def test_encode_by_hand() -> None:
    """[10, 20] to [12, 17]: centre -0.5, width halved, start +2, end -3, of a width of 10."""
    scales = OffsetScales(center=0.1, log_width=0.2, boundary=0.5)
    offsets = encode_offsets(torch.tensor([10.0, 20.0]), torch.tensor([12.0, 17.0]), scales=scales)
    expected = [-0.05 / 0.1, math.log(0.5) / 0.2, 0.2 / 0.5, -0.3 / 0.5]
    torch.testing.assert_close(offsets, torch.tensor(expected))


def test_decode_averages_the_two_answers() -> None:
    """Centre and width say [11, 21], start and end say [9, 23]."""
    scales = OffsetScales(center=0.1, log_width=0.2, boundary=0.1)
    decoded = decode_offsets(
        torch.tensor([10.0, 20.0]), torch.tensor([1.0, 0.0, -1.0, 3.0]), scales=scales
    )
    torch.testing.assert_close(decoded, torch.tensor([10.0, 22.0]))


@given(POSITION, WIDTH, POSITION, WIDTH)
def test_decoding_gives_back_what_was_encoded(
    start: float, width: float, target_start: float, target_width: float
) -> None:
    # Scales other than 1, so that a scale used on one side only would show.
    scales = OffsetScales(center=0.3, log_width=0.7, boundary=0.2)
    proposal = torch.tensor([start, start + width], dtype=torch.float64)
    target = torch.tensor([target_start, target_start + target_width], dtype=torch.float64)
    if abs(math.log(target_width / width)) < 4:
        offsets = encode_offsets(proposal, target, scales=scales)
        decoded = decode_offsets(proposal, offsets, scales=scales)
        torch.testing.assert_close(decoded, target, rtol=1e-9, atol=1e-9)


def test_absurd_widths_stay_finite() -> None:
    decoded = decode_offsets(
        torch.tensor([10.0, 20.0]), torch.tensor([0.0, 1e6, 0.0, 0.0]), scales=OffsetScales()
    )
    assert torch.isfinite(decoded).all()


def test_refuses_a_scale_of_zero() -> None:
    with pytest.raises(ValueError, match="positive"):
        OffsetScales(boundary=0.0)
