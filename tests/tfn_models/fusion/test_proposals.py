"""Fusion of refiners."""

import pytest
import torch

from tfn_models.fusion.proposals import RefinedVideo, fit_refiner_weights, fuse_refined
from tfn_models.fusion.weights import uniform_weights


def refined_videos(noises: list[float]) -> list[RefinedVideo]:
    """Refiners that miss the actions 10 .. 20 and 30 .. 45 s by their noise, in seconds."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.tensor([[10.0, 20.0], [30.0, 45.0]])
    videos = []
    for _ in range(20):
        noise = torch.randn(len(noises), 6, 2, generator=generator)
        segments = actions.repeat(3, 1) + noise * torch.tensor(noises)[:, None, None]
        scores = 0.9 + 0.05 * torch.randn(len(noises), 6, generator=generator)
        videos.append(RefinedVideo(segments, scores, actions))
    return videos


def test_uniform_weights_are_exactly_the_mean() -> None:
    video = refined_videos([1.0, 2.0, 0.5])[0]
    segments, scores = fuse_refined(video.segments, video.scores, uniform_weights(3))
    assert torch.equal(segments, video.segments.mean(dim=0))
    assert torch.equal(scores, video.scores.mean(dim=0))


def test_one_weight_a_refiner_worked_by_hand() -> None:
    segments = torch.tensor([[[0.0, 4.0]], [[2.0, 8.0]]])
    scores = torch.tensor([[0.4], [0.8]])
    fused, score = fuse_refined(segments, scores, torch.tensor([0.25, 0.75]))
    assert fused.tolist() == [[1.5, 7.0]]
    assert score.item() == pytest.approx(0.7)


def test_the_better_refiner_weighs_more() -> None:
    weights = fit_refiner_weights(refined_videos([0.3, 2.0]))
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0] > 0.8


def test_refiners_that_are_alike_weigh_the_same() -> None:
    video = refined_videos([1.0])[0]
    twice = RefinedVideo(video.segments.repeat(2, 1, 1), video.scores.repeat(2, 1), video.actions)
    torch.testing.assert_close(fit_refiner_weights([twice]), uniform_weights(2))


def test_same_input_gives_the_same_bits() -> None:
    videos = refined_videos([0.3, 2.0, 1.0])
    assert torch.equal(fit_refiner_weights(videos), fit_refiner_weights(videos))


def test_videos_with_nothing_to_learn_from() -> None:
    scores = torch.tensor([[0.1, 0.2], [0.5, 0.9]])
    segments = torch.rand(2, 2, 2).cumsum(dim=2)
    no_actions = RefinedVideo(segments, scores, torch.zeros(0, 2))
    weights = fit_refiner_weights([no_actions])
    assert weights[0] > weights[1]
    no_proposals = RefinedVideo(torch.zeros(2, 0, 2), torch.zeros(2, 0), torch.rand(1, 2))
    assert torch.equal(fit_refiner_weights([no_proposals]), uniform_weights(2))


def test_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3, 2\) and \(2, 4\)"):
        RefinedVideo(torch.zeros(2, 3, 2), torch.zeros(2, 4), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"actions must be \[G, 2\], got shape \(2,\)"):
        RefinedVideo(torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="at least one video"):
        fit_refiner_weights([])
    with pytest.raises(ValueError, match=r"got numbers \[1, 2\]"):
        fit_refiner_weights([refined_videos([1.0])[0], refined_videos([1.0, 2.0])[0]])
