"""Checks that the sequence layers share: shapes of sequences and of their padding masks."""

import torch
from torch import Tensor


def check_sequence(x: Tensor, mask: Tensor | None, *, channels: int) -> None:
    """Check x [B, T, channels] and its mask [B, T] bool, True where a snippet is valid.

    Raises:
        ValueError: a shape or the mask's dtype does not fit.
    """
    if x.ndim != 3 or x.shape[2] != channels:
        raise ValueError(f"the sequence must be [B, T, {channels}], got {list(x.shape)}")
    if mask is None:
        return
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"the mask must be bool {list(x.shape[:2])} like its sequence, "
            f"got {mask.dtype} {list(mask.shape)}"
        )


def mask_lengths(mask: Tensor) -> Tensor:
    """Valid snippets of each row of mask [B, T]: [B] int64.

    Under `torch.compile` the order is not checked: a graph cannot look at the values that run
    through it.

    Raises:
        ValueError: valid snippets do not come first, then the padding.
    """
    lengths = mask.sum(dim=1)
    if torch.compiler.is_compiling():
        return lengths
    snippets = torch.arange(mask.shape[1], device=mask.device)
    if not torch.equal(mask, snippets < lengths[:, None]):
        raise ValueError("a mask must be True for the first snippets and False for the padding")
    return lengths
