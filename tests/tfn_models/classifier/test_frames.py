"""The classifier on frames, with a real (small) backbone: padding has no influence, it learns."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tfn_models.backbones.slowfast import SLOWFAST_TINY, SlowFast, build_slowfast
from tfn_models.classifier.frames import FrameClassifier
from tfn_models.classifier.model import Classifier, ClassifierConfig, build_classifier

SMALLEST = replace(SLOWFAST_TINY, num_classes=3, slow_channels=4, channel_ratio=2, dropout=0.0)
MEAN = ClassifierConfig(num_classes=3, feature_dim=SMALLEST.feature_dim, dropout=0.0)
TRANSFORMER = replace(
    MEAN,
    pooling="transformer",
    transformer_channels=8,
    transformer_heads=2,
    local_heads=1,
    feedforward_channels=8,
    transformer_dropout=0.0,
)
CONFIGS = {"mean": MEAN, "transformer": TRANSFORMER}


def build(config: ClassifierConfig) -> tuple[SlowFast, Classifier, FrameClassifier]:
    torch.manual_seed(0)
    backbone, classifier = build_slowfast(SMALLEST), build_classifier(config)
    # Residual branches start at zero; here every layer speaks.
    for weight in backbone.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return backbone, classifier, FrameClassifier(backbone, classifier).eval()


def random_clips(*counts: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(len(counts), max(counts), 3, 4, 16, 16, generator=generator)
    return clips, torch.arange(max(counts)) < torch.tensor(counts)[:, None]


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_a_loop_over_clips(name: str) -> None:
    backbone, classifier, model = build(CONFIGS[name])
    clips, mask = random_clips(3, 1)
    clips[1, 1:] = torch.nan
    logits = model(clips, mask)
    assert logits.shape == (2, 3)
    for video, count in enumerate((3, 1)):
        features = [backbone.forward_features(clips[video, n][None])[0] for n in range(count)]
        alone = classifier(torch.stack(features)[None], torch.ones(1, count, dtype=torch.bool))
        torch.testing.assert_close(logits[video], alone[0])


def test_mean_pooling_is_the_mean_of_each_clips_logits() -> None:
    _, _, model = build(MEAN)
    clips, mask = random_clips(4)
    each = [model(clips[:, n : n + 1], mask[:, n : n + 1]) for n in range(4)]
    torch.testing.assert_close(model(clips, mask), torch.stack(each).mean(dim=0))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_the_neighbours_are_changes_no_bit(name: str) -> None:
    _, _, model = build(CONFIGS[name])
    clips, mask = random_clips(3, 2, 3)
    before = model(clips, mask)[1]
    clips[0], clips[2], clips[1, 2] = torch.randn_like(clips[0]), 7.0, torch.nan
    assert torch.equal(model(clips, mask)[1], before)


def test_padding_does_not_reach_the_batch_normalisation() -> None:
    _, _, model = build(MEAN)
    clips, mask = random_clips(3, 2)
    clips[1, 2] = 1e6
    model.train()(clips, mask)
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    _, _, other = build(MEAN)
    flat, every = clips.flatten(0, 1)[mask.flatten()][None], torch.ones(1, 5, dtype=torch.bool)
    other.train()(flat, every)
    for name, value in other.named_buffers():
        assert torch.equal(statistics[name], value), name


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_learns(name: str) -> None:
    _, _, model = build(CONFIGS[name])
    clips, mask = random_clips(2, 1, 2, 2)
    labels = torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model.train()(clips, mask), labels)
        loss.backward()
        missing = {n for n, weight in model.named_parameters() if weight.grad is None}
        # The backbone's own head is not used.
        assert missing == {"backbone.projection.weight", "backbone.projection.bias"}
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients(name: str) -> None:
    _, _, model = build(CONFIGS[name])
    model.double()
    clips, mask = random_clips(2, 1)
    clips = clips.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x, mask), (clips,), fast_mode=True)


def test_bf16_autocast_stays_near_fp32() -> None:
    _, _, model = build(TRANSFORMER)
    clips, mask = random_clips(2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(clips, mask)
    torch.testing.assert_close(logits.float(), model(clips, mask), rtol=0, atol=0.1)


def test_wrong_parts_and_shapes_are_refused() -> None:
    backbone, classifier, model = build(MEAN)
    clips, mask = random_clips(2)
    with pytest.raises(ValueError, match=r"\[B, N, 3, L, H, W\].*got \[2, 3, 4, 16, 16\]"):
        model(clips[0], mask)
    with pytest.raises(ValueError, match=r"torch.float32 \[1, 2\]"):
        model(clips, mask.float())
    with pytest.raises(ValueError, match="mask of none"):
        model(clips, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="got one for 5"):
        FrameClassifier(backbone, build_classifier(replace(MEAN, feature_dim=5)))

    class NoModule:
        feature_dim = SMALLEST.feature_dim

        def forward_features(self, clips: Tensor) -> Tensor:
            return clips

    with pytest.raises(ValueError, match="must be a torch.nn.Module"):
        FrameClassifier(NoModule(), classifier)
