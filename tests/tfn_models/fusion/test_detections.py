"""Classes times proposals, against a loop."""

import math

import pytest
import torch

from tfn_models.fusion.detections import combine_detections


@pytest.mark.parametrize("num_classes", [1, 2, 7])
@pytest.mark.parametrize("num_proposals", [0, 1, 90])
def test_equals_a_loop(num_classes: int, num_proposals: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_classes, generator=generator, dtype=torch.float64)
    segments = torch.rand(num_proposals, 2, generator=generator).cumsum(dim=1)
    scores = torch.rand(num_proposals, generator=generator, dtype=torch.float64)
    powers = [math.exp(2 * value) for value in logits.tolist()]
    classes = sorted(range(num_classes), key=lambda k: -powers[k])[:3]
    expected = sorted(
        (-score * powers[k] / sum(powers), number, k)
        for number, score in enumerate(scores.tolist())
        for k in classes
    )[:200]
    detections = combine_detections(logits, segments, scores)
    assert detections.labels.tolist() == [k for _, _, k in expected]
    assert detections.scores.tolist() == pytest.approx([-score for score, _, _ in expected])
    assert torch.equal(detections.segments, segments[[number for _, number, _ in expected]])


def test_scale_is_applied_before_softmax() -> None:
    """OpenTAD multiplies probabilities instead, which changes no ranking of classes."""
    detections = combine_detections(
        torch.tensor([0.0, math.log(3)]), torch.tensor([[0.0, 1.0]]), torch.tensor([1.0])
    )
    assert detections.labels.tolist() == [1, 0]
    assert detections.scores.tolist() == pytest.approx([0.9, 0.1])


def test_ties_keep_the_order_of_proposals() -> None:
    detections = combine_detections(
        torch.zeros(2), torch.tensor([[0.0, 1.0], [1.0, 2.0]]), torch.ones(2), max_detections=3
    )
    assert detections.labels.tolist() == [0, 1, 0]
    assert detections.segments.tolist() == [[0, 1], [0, 1], [1, 2]]


def test_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 2\), \(3, 2\), \(3,\)"):
        combine_detections(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="got 0 and 200"):
        combine_detections(torch.zeros(2), torch.zeros(3, 2), torch.zeros(3), top_classes=0)
