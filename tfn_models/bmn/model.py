"""Boundary-Matching Network (Lin et al., 2019; TFN section 1.2, "Boundary-Matching Network")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfn_models.bmn.boundary_matching import BoundaryMatching
from tfn_models.bmn.map_convolution import MapConvolutions
from tfn_models.bmn.sampling import WindowEnd
from tfn_models.boundary_maps import BoundaryMaps, valid_cell_index
from tfn_models.layers.lstm import BiLstm


@dataclass(frozen=True)
class BmnConfig:
    """The sizes of one BMN; the defaults are those of the HACS 2020 members."""

    feature_dim: int = 2304
    """Channels F of the features."""
    num_bins: int = 200
    """D: the length that features are resized to, and the side of the maps."""
    num_lstm_layers: int = 0
    """Bi-LSTM layers after the base convolutions; 0 means none."""
    base_channels: int = 256
    """Channels of the base and boundary modules."""
    map_channels: tuple[int, int, int] = (128, 512, 128)
    """Channels into the boundary-matching layer, out of it, and of the convolutions on the map."""
    num_samples: int = 32
    """N: samples of a window."""
    positions_per_sample: int = 3
    """Positions that one sample averages."""
    groups: int = 4
    """Groups of the base and boundary convolutions."""
    window_end: WindowEnd = "last_bin"
    """What a window of bins t .. e is sampled as: [t, e], or with "next_bin" JJBOY's [t, e + 1]."""

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        least = {"feature_dim": 1, "num_bins": 2, "base_channels": 1, "num_samples": 2}
        least |= {"positions_per_sample": 1, "groups": 1, "num_lstm_layers": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {getattr(self, name)}")
        for name in ("feature_dim", "base_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"{name} must be a multiple of groups = {self.groups}, "
                    f"got {getattr(self, name)}"
                )
        if len(self.map_channels) != 3 or min(self.map_channels) < 1:
            raise ValueError(
                f"map_channels must be three positive numbers, got {self.map_channels}"
            )


def confidence(logits: Tensor) -> Tensor:
    """The sigmoid of logits [...], in fp32 at least.

    In half precision all confidences near 1 would be one: they could not be ranked, and their
    gradient would be zero.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


class BoundaryHead(nn.Module):
    """TEM: the probability that an action starts (or ends) with a bin."""

    def __init__(self, channels: int, *, groups: int) -> None:
        """One grouped convolution and a projection to one number."""
        super().__init__()
        self.hidden = nn.Conv1d(channels, channels, 3, padding=1, groups=groups)
        self.output = nn.Conv1d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D] -> [B, D]."""
        return confidence(self.output(self.hidden(x).relu()).squeeze(1))


class WindowHead(nn.Module):
    """PEM: two confidences for every window."""

    def __init__(self, config: BmnConfig) -> None:
        """The sequence convolution, the boundary-matching layer, and convolutions on the map."""
        super().__init__()
        in_channels, window_channels, channels = config.map_channels
        self.num_bins = config.num_bins
        self.input = nn.Conv1d(config.base_channels, in_channels, 3, padding=1)
        self.matching = BoundaryMatching(
            in_channels,
            window_channels,
            num_bins=config.num_bins,
            num_samples=config.num_samples,
            positions_per_sample=config.positions_per_sample,
            window_end=config.window_end,
        )
        self.reduce = nn.Linear(window_channels, channels)
        self.convolutions = MapConvolutions(channels, num_bins=config.num_bins)
        self.output = nn.Linear(channels, 2)
        self.register_buffer("_cells", valid_cell_index(config.num_bins), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, D] -> classification and regression [B, D, D], 0 where no window exists."""
        # The dense layer holds its bias where no window exists, and the 3x3 convolutions read it.
        outside = self.reduce(self.matching.bias.relu())
        hidden = self.convolutions(self._reduced(self.input(x).relu()), outside)
        windows = confidence(self.output(hidden))
        cells = windows.new_zeros((len(x), self.num_bins * self.num_bins, 2))
        maps = cells.index_copy_(1, self.get_buffer("_cells"), windows)
        classification, regression = maps.view(-1, self.num_bins, self.num_bins, 2).unbind(3)
        return classification, regression

    def _reduced(self, sequence: Tensor) -> Tensor:
        """reduce(relu(matching(sequence))), block by block: [B, C, D] -> [B, P, C]."""
        sizes = self.matching.channel_blocks(sequence.device)
        hidden: Tensor = self.reduce.bias
        kernels = torch.split(self.reduce.weight, sizes, dim=1)
        for windows, kernel in zip(self.matching.blocks(sequence), kernels, strict=True):
            # Summed in the parameters' precision, whatever autocast multiplies in.
            part = F.linear(windows.relu_().to(kernel.dtype), kernel)
            hidden = hidden + part.to(hidden.dtype)
        return hidden


class Bmn(nn.Module):
    """Base module, TEM and PEM."""

    def __init__(
        self,
        base: nn.Module,
        *,
        lstm: BiLstm | None,
        start: BoundaryHead,
        end: BoundaryHead,
        windows: WindowHead,
    ) -> None:
        """Take the parts; `build_bmn` makes them from a config."""
        super().__init__()
        self.base = base
        self.lstm = lstm
        self.start = start
        self.end = end
        self.windows = windows

    def forward(self, features: Tensor) -> BoundaryMaps:
        """Features [B, D, F], already resized to D bins -> maps indexed [b, duration, start].

        Raises:
            ValueError: features are not of D bins.
        """
        num_bins = self.windows.num_bins
        if features.dim() != 3 or features.shape[1] != num_bins:
            raise ValueError(
                f"features must be [B, {num_bins}, F] (resize_sequence does that), "
                f"got shape {tuple(features.shape)}"
            )
        x = self.base(features.transpose(1, 2))
        if self.lstm is not None:
            x = self.lstm(x.transpose(1, 2)).transpose(1, 2)
        classification, regression = self.windows(x)
        return BoundaryMaps(
            start=self.start(x),
            end=self.end(x),
            classification=classification,
            regression=regression,
        )


def build_bmn(config: BmnConfig) -> Bmn:
    """Make the network; the parameters come from torch's global random state."""
    channels, groups = config.base_channels, config.groups
    base = nn.Sequential(
        nn.Conv1d(config.feature_dim, channels, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv1d(channels, channels, 3, padding=1, groups=groups),
        nn.ReLU(),
    )
    lstm = BiLstm(channels, num_layers=config.num_lstm_layers) if config.num_lstm_layers else None
    return Bmn(
        base,
        lstm=lstm,
        start=BoundaryHead(channels, groups=groups),
        end=BoundaryHead(channels, groups=groups),
        windows=WindowHead(config),
    )
