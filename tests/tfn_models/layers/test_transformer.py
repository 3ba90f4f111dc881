import math

import pytest
import torch

from tfn_models.layers.transformer import (
    TemporalTransformer,
    attention_mask,
    sinusoidal_positions,
)


def build(*, local_heads: int = 0, local_window: int = 3, **options: bool) -> TemporalTransformer:
    torch.manual_seed(0)
    model = TemporalTransformer(
        8,
        num_layers=2,
        num_heads=4,
        feedforward_channels=16,
        dropout=0.1,
        local_heads=local_heads,
        local_window=local_window,
        **options,
    )
    return model.eval()


@pytest.mark.parametrize("use_positions", [False, True])
@pytest.mark.parametrize("local_heads", [0, 2, 4])
def test_alone_or_beside_longer_videos_gives_the_same(
    local_heads: int, use_positions: bool
) -> None:
    model = build(local_heads=local_heads, use_positions=use_positions)
    x = torch.randn(3, 9, 8)
    mask = torch.arange(9) < torch.tensor([9, 4, 0])[:, None]
    x[~mask] = torch.nan
    output = model(x, mask)
    torch.testing.assert_close(output[1:2, :4], model(x[1:2, :4], mask[1:2, :4]))
    assert (output[~mask] == 0).all()


@pytest.mark.parametrize("local_heads", [0, 1, 4])
def test_attention_mask_against_a_loop(local_heads: int) -> None:
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    allowed = attention_mask(mask, num_heads=4, local_heads=local_heads, local_window=3)
    for video in range(2):
        for head in range(4):
            for query in range(6):
                for key in range(6):
                    near = head >= local_heads or abs(query - key) <= 1
                    expected = query == key or (near and bool(mask[video, key]))
                    assert allowed[video, head, query, key] == expected


def test_only_local_heads_reach_the_window_of_each_layer() -> None:
    model = build(local_heads=4, local_window=3)
    x = torch.randn(1, 9, 8, requires_grad=True)
    model(x, torch.ones(1, 9, dtype=torch.bool))[0, 4].square().sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [abs(snippet - 4) <= 2 for snippet in range(9)]


def test_one_layer_against_a_loop() -> None:
    torch.manual_seed(1)
    model = TemporalTransformer(
        4, num_layers=1, num_heads=2, feedforward_channels=6, dropout=0.0, local_heads=1
    ).double()
    x = torch.randn(1, 12, 4, dtype=torch.float64)
    layer = model.layers[0]
    heads = layer.query_key_value(layer.attention_norm(x))[0]
    attended = torch.zeros(12, 4, dtype=torch.float64)
    for head in range(2):
        part = slice(2 * head, 2 * head + 2)
        query, key, value = (heads[:, 4 * role : 4 * role + 4][:, part] for role in range(3))
        for i in range(12):
            seen = [j for j in range(12) if head == 1 or abs(i - j) <= 4]
            similarity = torch.stack([query[i] @ key[j] for j in seen]) / math.sqrt(2)
            attended[i, part] = similarity.softmax(0) @ value[seen]
    after = x + layer.attention_output(attended)
    expected = model.norm(after + layer.feedforward(after))
    torch.testing.assert_close(model(x, torch.ones(1, 12, dtype=torch.bool)), expected)


def test_gradients() -> None:
    torch.manual_seed(1)
    model = TemporalTransformer(
        4, num_layers=2, num_heads=2, feedforward_channels=3, dropout=0.0, local_heads=1
    ).double()
    x = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    assert torch.autograd.gradcheck(lambda value: model(value, mask), (x,))
    for name, value in model.named_parameters():

        def with_weight(value: torch.Tensor, name: str = name) -> torch.Tensor:
            output: torch.Tensor = torch.func.functional_call(model, {name: value}, (x, mask))
            return output

        weight = value.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(with_weight, (weight,), fast_mode=True), name


def test_what_the_neighbours_are_changes_no_bit() -> None:
    model = build(local_heads=2)
    x, mask = torch.randn(3, 9, 8), torch.arange(9) < torch.tensor([9, 4, 6])[:, None]
    before = model(x, mask)[1]
    x[0], x[2], mask[0] = torch.randn(9, 8), torch.nan, torch.arange(9) < 1
    mask[2] = False
    assert torch.equal(model(x, mask)[1], before)


def test_bf16_autocast_stays_near_fp32() -> None:
    model = build(local_heads=2)
    x, mask = torch.randn(2, 9, 8), torch.arange(9) < torch.tensor([9, 4])[:, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x, mask)
    torch.testing.assert_close(output.float(), model(x, mask), rtol=0, atol=0.1)


def test_dropout_only_in_training_and_by_the_seed() -> None:
    model = build()
    x, mask = torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(model(x, mask), model(x, mask))
    model.train()
    torch.manual_seed(3)
    first = model(x, mask)
    torch.manual_seed(3)
    assert torch.equal(first, model(x, mask))
    assert not torch.equal(first, model(x, mask))


def test_positions_by_hand() -> None:
    positions = sinusoidal_positions(3, channels=4)
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(positions[2], torch.tensor(expected))


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 6},
        {"num_layers": 0},
        {"local_heads": 5},
        {"local_window": 4},
        {"channels": 9, "num_heads": 3, "use_positions": True},
    ],
)
def test_refuses_sizes(options: dict[str, int]) -> None:
    sizes = {"channels": 8, "num_layers": 1, "num_heads": 4, **options}
    with pytest.raises(ValueError, match="got"):
        TemporalTransformer(sizes.pop("channels"), feedforward_channels=8, dropout=0.0, **sizes)
