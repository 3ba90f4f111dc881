import math

import pytest
import torch

from tfn_models.layers.nonlocal_block import NonlocalBlock


def build() -> NonlocalBlock:
    torch.manual_seed(0)
    block = NonlocalBlock(4).double()
    torch.nn.init.normal_(block.output.weight)
    return block


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 5, 4)
    assert torch.equal(NonlocalBlock(4)(x), x)


def test_against_a_loop() -> None:
    block = build()
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    query, key, value = block.query(x)[0], block.key(x)[0], block.value(x)[0]
    expected = x.clone()
    for i in range(5):
        similarity = torch.stack([query[i] @ key[j] for j in range(5)]) / math.sqrt(2)
        expected[0, i] += block.output(similarity.softmax(0) @ value)
    torch.testing.assert_close(block(x), expected)


def test_alone_or_beside_longer_videos_gives_the_same() -> None:
    block = build()
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([6, 2, 0])[:, None]
    x[~mask] = torch.nan
    output = block(x, mask)
    torch.testing.assert_close(output[1, :2], block(x[1:2, :2])[0])
    assert (output[~mask] == 0).all()


def test_gradients() -> None:
    block = build()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(3) < torch.tensor([3, 2])[:, None]
    assert torch.autograd.gradcheck(lambda value: block(value, mask), (x,))


def test_gradients_of_the_weights() -> None:
    block = build()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    for name, value in block.named_parameters():

        def with_weight(value: torch.Tensor, name: str = name) -> torch.Tensor:
            output: torch.Tensor = torch.func.functional_call(block, {name: value}, (x,))
            return output

        weight = value.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(with_weight, (weight,)), name


def test_what_the_neighbours_are_changes_no_bit() -> None:
    block = build()
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    before = block(x, mask)[1]
    x[0], x[2], mask[0] = torch.randn(6, 4), torch.nan, torch.arange(6) < 1
    mask[2] = False
    assert torch.equal(block(x, mask)[1], before)


def test_bf16_autocast_stays_near_fp32() -> None:
    block = build().float()
    x = torch.randn(2, 5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = block(x)
    torch.testing.assert_close(output.float(), block(x), rtol=0, atol=0.05)


def test_compiles_to_one_graph() -> None:
    torch._dynamo.reset()
    block = build()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, mask), block(x, mask))


def test_refuses_one_channel() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        NonlocalBlock(1)
