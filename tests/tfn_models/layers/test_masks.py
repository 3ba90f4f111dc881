import pytest
import torch

from tfn_models.layers.masks import check_sequence, mask_lengths


def test_mask_lengths_counts_valid_snippets() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    assert mask_lengths(mask).tolist() == [2, 0, 3]


def test_mask_lengths_refuses_a_hole() -> None:
    with pytest.raises(ValueError, match="first snippets"):
        mask_lengths(torch.tensor([[True, False, True]]))


def test_mask_lengths_compiles_to_one_graph_which_trusts_the_order() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(mask_lengths, fullgraph=True, backend="aot_eager")
    mask = torch.arange(4) < torch.tensor([4, 0, 2])[:, None]
    assert compiled(mask).tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        ((2, 3), None),
        ((2, 3, 5), None),
        ((2, 3, 4), torch.ones(2, 4, dtype=torch.bool)),
        ((2, 3, 4), torch.ones(2, 3)),
    ],
)
def test_check_sequence_refuses(shape: tuple[int, ...], mask: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_sequence(torch.zeros(shape), mask, channels=4)
