"""Transformer encoder over the snippets of a video, with optional local heads."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfn_models.layers.masks import check_sequence


class TemporalTransformer(nn.Module):
    """Transformer encoder over time (paper section 1.3; local heads as in TCANet's LGTE).

    Layers normalise before attention and feed-forward ("pre-norm", with one norm at the end):
    unlike post-norm it trains from the first step at the learning rates of the other layers,
    without a warm-up of its own.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_layers: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
        local_heads: int = 0,
        local_window: int = 9,
        use_positions: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            channels: C, input and output channels.
            num_layers: encoder layers.
            num_heads: attention heads of a layer, local ones included.
            feedforward_channels: hidden channels of the feed-forward part.
            dropout: probability, in attention and on both residual branches.
            local_heads: how many of the heads see only the window around each snippet.
            local_window: snippets in that window, odd: the snippet and as many on each side.
            use_positions: add sinusoidal positions to the input. Off by default: local heads
                and the convolutions before already tell order.

        Raises:
            ValueError: sizes do not fit together.
        """
        super().__init__()
        if num_layers < 1 or num_heads < 1 or channels % num_heads:
            raise ValueError(
                "channels must be a multiple of num_heads, num_layers at least 1, "
                f"got channels {channels}, num_heads {num_heads}, num_layers {num_layers}"
            )
        if not 0 <= local_heads <= num_heads:
            raise ValueError(f"local_heads must be in 0..{num_heads}, got {local_heads}")
        if local_window < 1 or local_window % 2 == 0:
            raise ValueError(f"local_window must be odd and at least 1, got {local_window}")
        if use_positions and channels % 2:
            raise ValueError(f"positions need an even number of channels, got {channels}")
        self.channels = channels
        self.num_heads = num_heads
        self.local_heads = local_heads
        self.local_window = local_window
        self.use_positions = use_positions
        self.layers = nn.ModuleList(
            _EncoderLayer(
                channels,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, T, C] to [B, T, C], zero in the padding.

        Args:
            x: the sequence.
            mask: [B, T] bool, True where valid.

        Raises:
            ValueError: a shape does not fit.
        """
        check_sequence(x, mask, channels=self.channels)
        x = torch.where(mask[:, :, None], x, 0.0)
        if self.use_positions:
            x = x + sinusoidal_positions(x.shape[1], channels=self.channels).to(x)
        allowed = attention_mask(
            mask,
            num_heads=self.num_heads,
            local_heads=self.local_heads,
            local_window=self.local_window,
        )
        bias = _additive(allowed, like=x)
        for layer in self.layers:
            x = layer(x, bias)
        output: Tensor = self.norm(x)
        return torch.where(mask[:, :, None], output, 0.0)


class _EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with pre-norm and a residual connection."""

    def __init__(
        self, channels: int, *, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.attention_output = nn.Linear(channels, channels)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, feedforward_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward_channels, channels),
            nn.Dropout(dropout),
        )
        self.residual_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map x [B, T, C] to [B, T, C]; bias [B, heads, T, T] is added to the similarities."""
        batch, length, channels = x.shape
        heads = self.query_key_value(self.attention_norm(x))
        query, key, value = heads.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged = attended.transpose(1, 2).reshape(batch, length, channels)
        x = x + self.residual_dropout(self.attention_output(merged))
        output: Tensor = x + self.feedforward(x)
        return output


def _additive(allowed: Tensor, *, like: Tensor) -> Tensor:
    """0 where allowed, minus infinity elsewhere: made once, and not by each layer for itself.

    In the type of the queries, which is autocast's where that lowers `like`.
    """
    device = like.device.type
    lowers = torch.is_autocast_enabled(device) and like.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if lowers else like.dtype
    zero = torch.zeros((), dtype=dtype, device=like.device)
    return torch.where(allowed, zero, -torch.inf)


def attention_mask(mask: Tensor, *, num_heads: int, local_heads: int, local_window: int) -> Tensor:
    """Which query snippet may look at which key snippet, per head: [B, heads, T, T] bool.

    The first `local_heads` heads look at most local_window // 2 snippets to each side. Nobody
    looks at padding, but each snippet at itself, so that the softmax of padding is finite.
    """
    snippets = torch.arange(mask.shape[1], device=mask.device)
    distance = (snippets[:, None] - snippets[None, :]).abs()
    is_global = torch.arange(num_heads, device=mask.device) >= local_heads
    near = is_global[:, None, None] | (distance <= local_window // 2)
    return (near & mask[:, None, None, :]) | (distance == 0)


def sinusoidal_positions(length: int, *, channels: int) -> Tensor:
    """Sinusoidal positions [length, channels] (Vaswani et al. 2017, section 3.5), channels even."""
    snippets = torch.arange(length, dtype=torch.float32)
    steps = torch.arange(0, channels, 2, dtype=torch.float32)
    angles = snippets[:, None] * torch.exp(steps * (-math.log(10000.0) / channels))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
