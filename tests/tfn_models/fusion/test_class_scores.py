"""Fusion of classifiers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tfn_models.fusion.class_scores import (
    ClassFusion,
    fit_class_fusion,
    fit_class_weights,
    fuse_class_scores,
)
from tfn_models.fusion.weights import uniform_weights


def members(noises: list[float], num_videos: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (num_videos,), generator=generator)
    truth = 2 * F.one_hot(labels, 5)
    noise = torch.randn(len(noises), num_videos, 5, generator=generator)
    return truth + noise * torch.tensor(noises)[:, None, None], labels


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_the_better_member_weighs_more_and_the_loss_falls(parametrisation: str) -> None:
    logits, labels = members([1.0, 3.0, 1.0])
    weights = fit_class_weights(logits, labels, parametrisation=parametrisation)  # type: ignore[arg-type]
    assert weights.dtype == torch.float64
    assert weights[1] < weights[0]
    assert weights[1] < weights[2]
    fitted = F.cross_entropy(fuse_class_scores(logits, weights), labels)
    uniform = F.cross_entropy(fuse_class_scores(logits, uniform_weights(3)), labels)
    assert fitted < uniform


def test_simplex_equals_a_grid_search() -> None:
    logits, labels = members([1.0, 2.0])
    fitted = fit_class_weights(logits, labels, penalty=0.0)
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    losses = [
        F.cross_entropy(fuse_class_scores(logits.double(), torch.stack([w, 1 - w])), labels)
        for w in grid
    ]
    assert fitted.sum().item() == pytest.approx(1)
    assert fitted[0].item() == pytest.approx(grid[torch.stack(losses).argmin()].item(), abs=2e-3)


def test_same_input_gives_the_same_bits() -> None:
    logits, labels = members([1.0, 2.0, 0.5])
    assert torch.equal(fit_class_weights(logits, labels), fit_class_weights(logits, labels))


def test_perfect_members_give_finite_weights() -> None:
    logits, labels = members([0.0, 0.0])
    weights = fit_class_weights(logits, labels, parametrisation="free")
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights[0], weights[1])


def test_uniform_weights_are_exactly_the_mean() -> None:
    logits, _ = members([1.0, 2.0, 0.5])
    assert torch.equal(fuse_class_scores(logits, uniform_weights(3)), logits.mean(dim=0))


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_a_new_fusion_is_the_mean_and_a_fitted_one_uses_its_weights(parametrisation: str) -> None:
    logits, labels = members([1.0, 2.0, 0.5])
    new = ClassFusion(3, parametrisation=parametrisation)  # type: ignore[arg-type]
    assert torch.equal(new(logits), logits.mean(dim=0))
    fitted = fit_class_fusion(logits, labels, parametrisation=parametrisation)  # type: ignore[arg-type]
    weights = fit_class_weights(logits, labels, parametrisation=parametrisation)  # type: ignore[arg-type]
    assert torch.equal(fitted.weights(), weights)
    assert torch.equal(fitted(logits), fuse_class_scores(logits, weights))
    assert not torch.equal(fitted(logits), logits.mean(dim=0))
    keeps_scale = weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert keeps_scale == (parametrisation == "simplex")


def test_a_fusion_can_be_trained_by_any_optimiser_and_saved() -> None:
    logits, labels = members([1.0, 3.0])
    fusion = ClassFusion(2)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(fusion(logits), labels).backward()
        optimizer.step()
    expected = fit_class_weights(logits, labels, penalty=0.0)
    torch.testing.assert_close(fusion.weights().detach(), expected, rtol=0, atol=2e-3)
    loaded = ClassFusion(2)
    loaded.load_state_dict(fusion.state_dict())
    assert torch.equal(loaded(logits), fusion(logits))


@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_gradients(parametrisation: str) -> None:
    logits, labels = members([1.0, 2.0], num_videos=3)
    fusion = ClassFusion(2, parametrisation=parametrisation)  # type: ignore[arg-type]
    numbers = torch.tensor([0.4, 0.9], dtype=torch.float64, requires_grad=True)

    def criterion(numbers: Tensor, logits: Tensor) -> Tensor:
        fused = torch.func.functional_call(fusion, {"weights.numbers": numbers}, (logits,))
        return F.cross_entropy(fused, labels)

    assert torch.autograd.gradcheck(criterion, (numbers, logits.double().requires_grad_()))


@pytest.mark.slow
@pytest.mark.parametrize("parametrisation", ["simplex", "free"])
def test_compiles_to_one_graph(parametrisation: str) -> None:
    torch._dynamo.reset()
    fusion = ClassFusion(3, parametrisation=parametrisation)  # type: ignore[arg-type]
    logits, _ = members([1.0, 2.0, 0.5], num_videos=4)
    compiled = torch.compile(fusion, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits), logits.mean(dim=0))


def test_refuses_wrong_input() -> None:
    logits, labels = members([1.0], num_videos=4)
    with pytest.raises(ValueError, match=r"got \(1, 4, 5\) and \(3,\)"):
        fit_class_weights(logits, labels[:3])
    with pytest.raises(ValueError, match="0..4, got 0..5"):
        fit_class_weights(logits, torch.tensor([0, 1, 2, 5]))
    with pytest.raises(ValueError, match="finite"):
        fit_class_weights(logits * float("nan"), labels)
    with pytest.raises(ValueError, match=r"\[M, V, K\], got shape \(4, 5\)"):
        fuse_class_scores(logits[0], torch.ones(4))
