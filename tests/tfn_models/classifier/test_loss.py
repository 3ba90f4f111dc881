"""Classification loss against loops and the eigenvalues of the Gram matrix."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tfn_models.classifier.loss import ClassifierLoss, batch_nuclear_norm, classifier_loss


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, generator=generator, dtype=torch.float64)


def slow_nuclear_norm(logits: Tensor) -> float:
    """Sum of the roots of the eigenvalues of P P^T, divided by the rows."""
    rows = [[math.exp(float(x)) for x in row] for row in logits]
    probabilities = torch.tensor([[x / sum(row) for x in row] for row in rows], dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(probabilities @ probabilities.T)
    return float(eigenvalues.clamp(min=0).sqrt().sum()) / len(rows)


def slow_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        for k, x in enumerate(row):
            target = (1 - label_smoothing) * (k == label) + label_smoothing / len(row)
            total -= target * (x - log_sum)
    return total / len(logits)


@settings(max_examples=40, deadline=None)
@given(
    videos=st.integers(1, 9),
    classes=st.integers(1, 9),
    seed=st.integers(0, 1000),
    weight=st.sampled_from([0.0, 0.5, 2.0]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
)
def test_equals_slow_formulas(
    videos: int, classes: int, seed: int, weight: float, label_smoothing: float
) -> None:
    logits = random_logits(videos, classes, seed=seed)
    labels = torch.arange(videos) % classes
    loss = classifier_loss(
        logits, labels, nuclear_norm_weight=weight, label_smoothing=label_smoothing
    )
    cross_entropy = slow_cross_entropy(logits, labels, label_smoothing)
    norm = slow_nuclear_norm(logits)
    assert float(loss.cross_entropy) == pytest.approx(cross_entropy, abs=1e-9)
    if weight == 0:
        assert loss.nuclear_norm is None
    else:
        assert float(loss.nuclear_norm) == pytest.approx(norm, abs=1e-6)
    assert float(loss.total) == pytest.approx(cross_entropy - weight * norm, abs=1e-5)


def test_nuclear_norm_worked_by_hand() -> None:
    """Sure and diverse: the identity, norm B. Sure of one class: rank one, sqrt(B)."""
    diverse = 100 * torch.eye(4)
    assert float(batch_nuclear_norm(diverse)) == pytest.approx(1)
    same = torch.zeros(4, 4).index_fill(1, torch.tensor([2]), 100.0)
    assert float(batch_nuclear_norm(same)) == pytest.approx(math.sqrt(4) / 4)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6), (6, 1)])
def test_gradient(shape: tuple[int, int]) -> None:
    logits = random_logits(*shape).requires_grad_()
    assert torch.autograd.gradcheck(batch_nuclear_norm, (logits,))


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_gradient_of_the_whole_loss(weight: float, label_smoothing: float) -> None:
    logits, labels = random_logits(4, 3).requires_grad_(), torch.tensor([0, 2, 1, 0])

    def total(logits: Tensor) -> Tensor:
        return classifier_loss(
            logits, labels, nuclear_norm_weight=weight, label_smoothing=label_smoothing
        ).total

    assert torch.autograd.gradcheck(total, (logits,))


@pytest.mark.slow
def test_compiles_to_one_graph() -> None:
    torch._dynamo.reset()

    def total(logits: Tensor, labels: Tensor) -> Tensor:
        return classifier_loss(logits, labels, nuclear_norm_weight=0.7).total

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    logits, labels = random_logits(4, 3).requires_grad_(), torch.tensor([0, 2, 1, 0])
    (grad,) = torch.autograd.grad(compiled(logits, labels), logits)
    torch.testing.assert_close(grad, torch.autograd.grad(total(logits, labels), logits)[0])


def test_gradient_with_repeated_singular_values() -> None:
    """All singular values of a circulant of this kind but the first are equal."""
    logits = (2 * torch.eye(4, dtype=torch.float64)).requires_grad_()
    values = torch.linalg.svdvals(logits.detach().softmax(dim=1))
    assert float(values[1] - values[3]) < 1e-12
    assert torch.autograd.gradcheck(batch_nuclear_norm, (logits,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(6, 4),
        torch.eye(3).repeat(3, 1),
        50 * torch.eye(5),
        torch.full((4, 7), 1e4).tril(),
        torch.tensor([[1.0, 2.0, 3.0]] * 8),
    ],
    ids=["uniform", "each row thrice", "identity", "saturated", "one row"],
)
def test_gradient_is_finite_on_repeated_and_zero_singular_values(
    logits: Tensor, dtype: torch.dtype
) -> None:
    logits = logits.to(dtype, copy=True).requires_grad_()
    loss = classifier_loss(logits, torch.zeros(len(logits)).long(), nuclear_norm_weight=1.0)
    loss.total.backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_gradient_is_a_subgradient_where_rows_repeat() -> None:
    """The norm is convex: no matrix lies below the plane that the gradient spans.

    Checked through softmax by small steps: none may lose more than the second order.
    """
    logits = random_logits(1, 5).repeat(4, 1).requires_grad_()
    value = batch_nuclear_norm(logits)
    (grad,) = torch.autograd.grad(value, logits)
    for seed in range(20):
        step = 1e-5 * random_logits(4, 5, seed=seed)
        change = batch_nuclear_norm(logits.detach() + step) - value.detach()
        assert float(change - (grad * step).sum()) > -1e-8


def test_weight_zero_gives_the_gradient_of_cross_entropy() -> None:
    logits, labels = random_logits(4, 3).requires_grad_(), torch.tensor([0, 1, 2, 0])
    (grad,) = torch.autograd.grad(classifier_loss(logits, labels).total, logits)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.equal(grad, torch.autograd.grad(plain, logits)[0])


def test_more_weight_makes_predictions_more_diverse() -> None:
    def norm_after_training(weight: float) -> float:
        logits = (0.1 * random_logits(6, 3)).requires_grad_()
        labels = torch.zeros(6, dtype=torch.int64)
        for _ in range(50):
            loss = classifier_loss(logits, labels, nuclear_norm_weight=weight)
            (grad,) = torch.autograd.grad(loss.total, logits)
            logits = (logits.detach() - grad).requires_grad_()
        return float(batch_nuclear_norm(logits.detach()))

    assert norm_after_training(4.0) > norm_after_training(0.0) + 0.1


def test_logits_that_are_no_numbers_give_a_loss_that_is_none() -> None:
    """The decomposition raised, before the training could say what went wrong."""
    logits = random_logits(4, 3)
    logits[1, 2] = float("nan")
    loss = classifier_loss(logits, torch.tensor([0, 1, 2, 0]), nuclear_norm_weight=1.0)
    assert loss.total.isnan() and loss.nuclear_norm is not None and loss.nuclear_norm.isnan()


def test_half_precision_logits_are_computed_in_fp32() -> None:
    logits = random_logits(4, 3).to(torch.bfloat16)
    assert batch_nuclear_norm(logits).dtype == torch.float32


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be \[2\], got \[3\]"):
        classifier_loss(torch.zeros(2, 4), torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"got \[0, 4\]"):
        batch_nuclear_norm(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="scalars"):
        ClassifierLoss(torch.zeros(2), torch.tensor(0.0), torch.tensor(0.0))
