"""The shared criteria against loops."""

import math

import torch

from tfn_models.criteria import balanced_logistic, iou_classes


def test_balanced_logistic_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 7, generator=generator, dtype=torch.float64)
    positive = torch.rand(3, 7, generator=generator) > 0.8
    number, positives = 21, int(positive.sum())
    # BSN writes it with the coefficients r / 2 and r / (r - 1) / 2, r = number / positives.
    ratio = number / positives
    total = 0.0
    for p, is_positive in zip(probabilities.flatten().tolist(), positive.flatten(), strict=True):
        if is_positive:
            total += 0.5 * ratio * math.log(p + 1e-6)
        else:
            total += 0.5 * ratio / (ratio - 1) * math.log(1 - p + 1e-6)
    assert math.isclose(balanced_logistic(probabilities, positive).item(), -total / number)


def test_balanced_logistic_is_finite_at_the_edges() -> None:
    certain = torch.tensor([0.0, 1.0], requires_grad=True)
    for positive in ([True, False], [False, False], [True, True], [False, True]):
        loss = balanced_logistic(certain, torch.tensor(positive))
        (gradient,) = torch.autograd.grad(loss, certain)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert balanced_logistic(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).item() == 0


def test_iou_classes_split_at_the_thresholds() -> None:
    low, middle, high = iou_classes(torch.tensor([0.0, 0.3, 0.31, 0.7, 0.71, 1.0]))
    assert low.tolist() == [True, True, False, False, False, False]
    assert middle.tolist() == [False, False, True, True, False, False]
    assert high.tolist() == [False, False, False, False, True, True]
