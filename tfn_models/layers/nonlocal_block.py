"""Non-local block over the snippets of a sequence."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfn_models.layers.masks import check_sequence


class NonlocalBlock(nn.Module):
    """Embedded-Gaussian Non-local block with a residual (Wang et al. 2018, section 3).

    Two differences from that paper: the similarity is divided by the square root of the inner
    channels, as in a Transformer, and the output projection itself starts at zero (there the
    scale of its batch norm does), so a new block is the identity.
    """

    def __init__(self, channels: int) -> None:
        """Build the block; inside it has half of the channels.

        Raises:
            ValueError: channels is below 2.
        """
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels must be at least 2, got {channels}")
        self.channels = channels
        self.query = nn.Linear(channels, channels // 2)
        self.key = nn.Linear(channels, channels // 2)
        self.value = nn.Linear(channels, channels // 2)
        self.output = nn.Linear(channels // 2, channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x [B, T, C] to [B, T, C], zero in the padding.

        Args:
            x: the sequence.
            mask: [B, T] bool, True where valid; None if all are.

        Raises:
            ValueError: a shape does not fit.
        """
        check_sequence(x, mask, channels=self.channels)
        allowed = None
        if mask is not None:
            x = torch.where(mask[:, :, None], x, 0.0)
            # Each snippet may look at itself, so that the softmax of padding is finite.
            itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            allowed = (mask[:, None, :] | itself)[:, None]
        # As one head: without that dimension, torch's fast kernels are not used.
        query, key, value = (layer(x)[:, None] for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)[:, 0]
        result: Tensor = x + self.output(attended)
        return result if mask is None else torch.where(mask[:, :, None], result, 0.0)
