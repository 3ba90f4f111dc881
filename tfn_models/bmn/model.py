"""Boundary-Matching Network (Lin et al., 2019; TFN section 1.2, "Boundary-Matching Network")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tfn_models.bmn.boundary_matching import BoundaryMatching
from tfn_models.boundary_maps import BoundaryMaps, unpack_valid_cells, valid_cell_index, valid_cells
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


class BoundaryHead(nn.Module):
    """TEM: the probability that an action starts (or ends) with a bin."""

    def __init__(self, channels: int, *, groups: int) -> None:
        """One grouped convolution and a projection to one number."""
        super().__init__()
        self.hidden = nn.Conv1d(channels, channels, 3, padding=1, groups=groups)
        self.output = nn.Conv1d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D] -> [B, D]."""
        scores: Tensor = self.output(self.hidden(x).relu())
        return scores.squeeze(1).sigmoid()


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
        )
        self.reduce = nn.Linear(window_channels, channels)
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.output = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, D] -> classification and regression [B, D, D], 0 where no window exists."""
        windows = self.matching(self.input(x).relu()).relu()
        # The dense layer holds its bias where no window exists, and the 3x3 convolutions read it.
        outside = self.reduce(self.matching.bias.relu()).relu()
        hidden = self.convolutions(self._to_map(self.reduce(windows).relu(), outside))
        index = valid_cell_index(self.num_bins, device=x.device)
        cells = hidden.flatten(2).transpose(1, 2).index_select(1, index)
        confidences = unpack_valid_cells(self.output(cells).sigmoid().transpose(1, 2))
        return confidences[:, 0], confidences[:, 1]

    def _to_map(self, windows: Tensor, outside: Tensor) -> Tensor:
        """Lay windows [B, P, C] out as [B, C, D, D], with `outside` [C] in all other cells."""
        num_bins = self.num_bins
        index = valid_cell_index(num_bins, device=windows.device)
        is_outside = ~valid_cells(num_bins, device=windows.device).flatten().unsqueeze(1)
        empty = windows.new_zeros((len(windows), num_bins * num_bins, windows.shape[2]))
        cells = empty.index_copy(1, index, windows) + is_outside * outside.to(windows.dtype)
        return cells.transpose(1, 2).view(len(windows), -1, num_bins, num_bins)


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
        """Features [B, D, F], already resized to D bins -> maps indexed [b, duration, start]."""
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
