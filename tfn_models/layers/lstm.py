"""Bidirectional LSTM over a padded sequence."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tfn_models.layers.masks import check_sequence, mask_lengths


class BiLstm(nn.Module):
    """Bidirectional LSTM that keeps the number of channels (paper section 1.2 and 1.3).

    Each direction has half of the channels. The backward direction starts at a sequence's last
    valid snippet, so padding changes nothing.

    `torch.compile` leaves its graph here: its tracer does not support `nn.LSTM`, and a recurrence
    of our own, step by step, would be slower than what leaving costs.
    """

    def __init__(self, channels: int, *, num_layers: int) -> None:
        """Build the layer for sequences of `channels` channels.

        Raises:
            ValueError: channels is not even and positive, or num_layers is below 1.
        """
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels must be even and at least 2, got {channels}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        self.channels = channels
        self.lstm = nn.LSTM(
            channels, channels // 2, num_layers=num_layers, batch_first=True, bidirectional=True
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x [B, T, C] to [B, T, C], zero in the padding.

        Args:
            x: the sequence.
            mask: [B, T] bool, True where valid, valid snippets first; None if all are.

        Raises:
            ValueError: a shape does not fit, or the mask has a hole.
        """
        check_sequence(x, mask, channels=self.channels)
        if mask is None:
            output: Tensor = self.lstm(x)[0]
            return output
        # Packing refuses empty rows: they run one snippet, which the mask then removes.
        lengths = mask_lengths(mask).clamp(min=1).cpu()
        clean = torch.where(mask[:, :, None], x, 0.0)
        packed = pack_padded_sequence(clean, lengths, batch_first=True, enforce_sorted=False)
        padded, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return torch.where(mask[:, :, None], padded, 0.0)
