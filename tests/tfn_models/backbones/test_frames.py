"""Normalisation of frames against the formula, one number after another."""

import itertools

import pytest
import torch

from tfn_models.backbones.frames import normalize_frames

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 2, 3, 4), (1, 2, 2, 2, 3)])
def test_equals_the_formula(shape: tuple[int, ...]) -> None:
    frames = torch.randint(0, 256, (*shape, 3), generator=torch.Generator().manual_seed(0))
    clips = normalize_frames(frames.to(torch.uint8), mean=MEAN, std=STD)
    assert clips.shape == (*shape[:-3], 3, *shape[-3:])
    for *batch, frame, row, column, channel in itertools.product(*map(range, frames.shape)):
        pixel = int(frames[(*batch, frame, row, column, channel)])
        expected = (pixel / 255 - MEAN[channel]) / STD[channel]
        found = float(clips[(*batch, channel, frame, row, column)])
        assert found == pytest.approx(expected, abs=1e-5)


def test_float_frames_give_the_same_and_are_not_changed() -> None:
    frames = torch.arange(48, dtype=torch.uint8).reshape(1, 2, 4, 2, 3)
    as_float = frames.float()
    assert torch.equal(normalize_frames(frames), normalize_frames(as_float))
    assert torch.equal(as_float, frames.float())


def test_a_batch_is_laid_out_channels_last() -> None:
    clips = normalize_frames(torch.zeros(2, 4, 6, 5, 3, dtype=torch.uint8))
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)


def test_wrong_frames_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 4, 5, 1\]"):
        normalize_frames(torch.zeros(2, 4, 5, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got torch.int64"):
        normalize_frames(torch.zeros(2, 4, 5, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="std positive"):
        normalize_frames(torch.zeros(2, 4, 5, 3), std=(1, 0, 1))
