"""The video classifier: pooling against a loop, padding without influence, both poolings learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tfn_models.classifier.model import (
    Classifier,
    ClassifierConfig,
    build_classifier,
    masked_mean,
)

MEAN = ClassifierConfig(num_classes=3, feature_dim=8, dropout=0.0)
TRANSFORMER = replace(
    MEAN,
    pooling="transformer",
    transformer_channels=16,
    transformer_heads=4,
    local_heads=2,
    local_window=3,
    feedforward_channels=12,
    transformer_dropout=0.0,
)
CONFIGS = [MEAN, replace(MEAN, hidden_channels=6), TRANSFORMER]


def build(config: ClassifierConfig) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(config).eval()


def random_videos(*lengths: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(lengths), max(lengths), 8, generator=generator)
    return features, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_masked_mean_equals_a_loop() -> None:
    features, mask = random_videos(4, 1, 7)
    mask[0, 2] = False
    for video, (x, valid) in enumerate(zip(features, mask, strict=True)):
        rows = [x[t] for t in range(7) if valid[t]]
        torch.testing.assert_close(masked_mean(features, mask)[video], sum(rows) / len(rows))


def test_mean_of_nothing_is_zero() -> None:
    features, mask = random_videos(2, 3)
    mask[0] = False
    assert torch.equal(masked_mean(features, mask)[0], torch.zeros(8))


def test_mean_pooling_is_a_linear_head_on_the_mean() -> None:
    model = build(replace(MEAN, dropout=0.5))
    features, mask = random_videos(5)
    head = model.head[-1]
    expected = head.weight @ features[0].mean(dim=0) + head.bias
    torch.testing.assert_close(model(features, mask)[0], expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_padding_has_no_influence(config: ClassifierConfig) -> None:
    """Not even NaN in it; a video alone scores as in a batch."""
    model = build(config)
    features, mask = random_videos(4, 7)
    features[0, 4:] = torch.nan
    logits = model(features, mask)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(logits[:1], model(features[:1, :4], mask[:1, :4]))
    logits.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("config", CONFIGS)
def test_what_the_neighbours_are_changes_no_bit(config: ClassifierConfig) -> None:
    model = build(config)
    features, mask = random_videos(4, 7, 5)
    features[0, 4:] = torch.nan
    before = model(features, mask)[0]
    features[1], features[2], mask[1] = torch.randn(7, 8), torch.nan, torch.arange(7) < 2
    mask[2] = False
    assert torch.equal(model(features, mask)[0], before)


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients(config: ClassifierConfig) -> None:
    model = build(config).double()
    features, mask = random_videos(4, 3)
    features = features.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x, mask), (features,))


@pytest.mark.parametrize("config", CONFIGS)
def test_bf16_autocast_stays_near_fp32(config: ClassifierConfig) -> None:
    model = build(config)
    features, mask = random_videos(4, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(features, mask)
    assert bool(logits.isfinite().all())
    torch.testing.assert_close(logits.float(), model(features, mask), rtol=0, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_compiles_to_one_graph(config: ClassifierConfig) -> None:
    torch._dynamo.reset()
    model = build(config)
    features, mask = random_videos(4, 7)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    logits = compiled(features, mask)
    torch.testing.assert_close(logits, model(features, mask))
    logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_every_weight_gets_a_gradient_and_training_lowers_the_loss(
    config: ClassifierConfig,
) -> None:
    model = build(config).train()
    features, mask = random_videos(4, 7, 5, 3, 6, 2)
    labels = torch.arange(6) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(features, mask), labels)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_only_the_transformer_sees_order() -> None:
    """Its local heads tell neighbours from others; the mean cannot."""
    features, mask = random_videos(7)
    mixed = features[:, torch.tensor([3, 0, 6, 1, 5, 2, 4])]
    for config, sees_order in ((MEAN, False), (TRANSFORMER, True)):
        model = build(config)
        same = torch.allclose(model(features, mask), model(mixed, mask), atol=1e-5)
        assert same is not sees_order


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"pooling": "max"}, "'mean' or 'transformer', got 'max'"),
        ({"hidden_channels": -1}, "hidden_channels"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MEAN, **change)


def test_features_of_another_length_are_refused() -> None:
    features, mask = random_videos(4)
    with pytest.raises(ValueError, match="8"):
        build(MEAN)(features[:, :, :5], mask)
