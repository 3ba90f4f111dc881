import pytest
import torch

from tfn_models.refine.offsets import OffsetScales, encode_offsets
from tfn_models.refine.targets import (
    PaddedTruth,
    action_targets,
    pad_ground_truth,
    stage_targets,
)

SCALES = OffsetScales()


def random_segments(count: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 1, generator=generator) * 10
    return torch.cat((start, start + 0.2 + torch.rand(count, 1, generator=generator) * 6), dim=1)


def padded(truth: list[torch.Tensor]) -> PaddedTruth:
    return pad_ground_truth(truth, like=torch.zeros(len(truth)))


@pytest.mark.parametrize("counts", [[3, 1], [0, 2], [0, 0]])
def test_stage_targets_against_a_loop(counts: list[int]) -> None:
    segments = torch.stack([random_segments(8, seed=video) for video in range(2)])
    truth = [random_segments(count, seed=9 + video) for video, count in enumerate(counts)]
    targets = stage_targets(segments, padded(truth), scales=SCALES)
    for video in range(2):
        for index, (start, end) in enumerate(segments[video].tolist()):
            best, matched = 0.0, segments[video, index]
            for other in truth[video]:
                inside = max(0.0, min(end, other[1].item()) - max(start, other[0].item()))
                iou = inside / (end - start + (other[1] - other[0]).item() - inside)
                if iou > best:
                    best, matched = iou, other
            assert targets.iou[video, index].item() == pytest.approx(best, abs=1e-6)
            torch.testing.assert_close(
                targets.offsets[video, index],
                encode_offsets(segments[video, index], matched, scales=SCALES),
            )


def test_action_targets_by_hand() -> None:
    """[0.5, 2.25] covers half of clip 0, clip 1 and a quarter of clip 2; [3.4, 3.6] a fifth."""
    truth = [torch.tensor([[0.5, 2.25], [3.4, 3.6]]), torch.zeros(0, 2)]
    mask = torch.tensor([[True] * 5, [True] * 5])
    targets = action_targets(padded(truth), mask=mask)
    expected = torch.tensor([[0.5, 1.0, 0.25, 0.2, 0.0], [0.0] * 5])
    torch.testing.assert_close(targets, expected)


def test_action_targets_take_the_best_of_overlapping_actions_and_skip_padding() -> None:
    truth = [torch.tensor([[0.0, 2.6], [2.0, 2.8]])]
    targets = action_targets(padded(truth), mask=torch.tensor([[True, False, True]]))
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.0, 0.8]]))


@pytest.mark.parametrize(
    "truth",
    [[], [torch.zeros(2)], [torch.tensor([[2.0, 1.0]])], [torch.tensor([[1.0, float("nan")]])]],
)
def test_refuses_ground_truth(truth: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="ground truth"):
        pad_ground_truth(truth, like=torch.tensor([[[0.0, 1.0]]]))


def test_padding_by_hand() -> None:
    one, none = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.zeros(0, 2)
    got = padded([one, none])
    assert got.segments.tolist() == [[[1, 2], [3, 5]], [[0, 0], [0, 0]]]
    assert got.valid.tolist() == [[True, True], [False, False]]
    assert padded([none]).segments.shape == (1, 1, 2)
    with pytest.raises(ValueError, match=r"must be \[B, G, 2\]"):
        PaddedTruth(segments=torch.zeros(1, 2, 2), valid=torch.zeros(1, 3, dtype=torch.bool))
