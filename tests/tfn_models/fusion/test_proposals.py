"""Fusion of refiners."""

import pytest
import torch

from tfn_models.fusion.proposals import (
    RefinedFusion,
    RefinedVideo,
    fit_refined_fusion,
    fit_refiner_weights,
    fuse_refined,
)
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


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_a_new_fusion_is_the_mean_and_a_fitted_one_uses_its_weights(parametrisation: str) -> None:
    videos = refined_videos([1.0, 2.0, 0.5])
    video = videos[0]
    new = RefinedFusion(3, parametrisation=parametrisation)  # type: ignore[arg-type]
    segments, scores = new(video.segments, video.scores)
    assert torch.equal(segments, video.segments.mean(dim=0))
    assert torch.equal(scores, video.scores.mean(dim=0))
    fitted = fit_refined_fusion(videos, parametrisation=parametrisation)  # type: ignore[arg-type]
    weights = fit_refiner_weights(videos, parametrisation=parametrisation)  # type: ignore[arg-type]
    assert torch.equal(fitted.weights(), weights)
    for got, want in zip(
        fitted(video.segments, video.scores),
        fuse_refined(video.segments, video.scores, weights),
        strict=True,
    ):
        assert torch.equal(got, want)


def opposite_refiners(shift: float = 0.0) -> list[RefinedVideo]:
    """The second refiner errs as the first one does, but twice as far: truth is 2 · 1st - 2nd."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.tensor([[10.0, 20.0], [30.0, 45.0]]).double() + shift
    videos = []
    for _ in range(20):
        error = torch.randn(6, 2, generator=generator).double() * 0.5
        near = actions.repeat(3, 1)
        segments = torch.stack([near + error, near + 2 * error])
        videos.append(RefinedVideo(segments, torch.full((2, 6), 0.9).double(), actions))
    return videos


def test_free_weights_find_what_no_simplex_can() -> None:
    videos = opposite_refiners()
    free = fit_refiner_weights(videos, parametrisation="free", penalty=0.0)
    assert free.sum().item() == pytest.approx(1)
    assert free[1] < -0.5
    simplex = fit_refiner_weights(videos, penalty=0.0)
    assert simplex[0] > 0.99
    errors = [
        float(
            sum(
                (fuse_refined(v.segments, v.scores, w)[0] - v.actions.repeat(3, 1)).abs().mean()
                for v in videos
            )
        )
        for w in (free, simplex)
    ]
    assert errors[0] < 0.4 * errors[1]


@pytest.mark.parametrize("shift", [-3.0, 1000.0])
def test_a_later_clock_moves_fused_boundaries_by_as_much(shift: float) -> None:
    """Free weights without a fixed sum would move them by `shift` times their sum."""
    here, there = opposite_refiners(), opposite_refiners(shift)
    weights = [fit_refiner_weights(videos, parametrisation="free") for videos in (here, there)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)
    for before, after in zip(here, there, strict=True):
        moved, scores = fuse_refined(after.segments, after.scores, weights[0])
        segments, same_scores = fuse_refined(before.segments, before.scores, weights[0])
        torch.testing.assert_close(moved, segments + shift)
        assert torch.equal(scores, same_scores)


def test_what_negative_weights_spoil_is_repaired() -> None:
    """2 · [0, 10] - [5, 30] is [-5, -10], and 2 · 0.1 - 0.9 is no score."""
    segments = torch.tensor([[[0.0, 10.0]], [[5.0, 30.0]]])
    fused, score = fuse_refined(
        segments, torch.tensor([[0.1], [0.9]]), torch.tensor([2.0, -1.0]).double()
    )
    assert fused.tolist() == [[-10.0, -5.0]]
    assert score.tolist() == [0.0]


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_gradients(parametrisation: str) -> None:
    video = refined_videos([1.0, 2.0])[0]
    fusion = RefinedFusion(2, parametrisation=parametrisation)  # type: ignore[arg-type]
    numbers = torch.tensor([0.2, -0.4], dtype=torch.float64, requires_grad=True)
    segments, scores = video.segments.double(), video.scores.double() / 2

    def fused(numbers: torch.Tensor, *refined: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both: tuple[torch.Tensor, torch.Tensor] = torch.func.functional_call(
            fusion, {"weights.numbers": numbers}, refined
        )
        return both

    inputs = (numbers, segments.requires_grad_(), scores.requires_grad_())
    assert torch.autograd.gradcheck(fused, inputs)


def test_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3, 2\) and \(2, 4\)"):
        RefinedVideo(torch.zeros(2, 3, 2), torch.zeros(2, 4), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"actions must be \[G, 2\], got shape \(2,\)"):
        RefinedVideo(torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="at least one video"):
        fit_refiner_weights([])
    with pytest.raises(ValueError, match=r"got numbers \[1, 2\]"):
        fit_refiner_weights([refined_videos([1.0])[0], refined_videos([1.0, 2.0])[0]])
