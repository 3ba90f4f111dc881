"""The Refine Network: paper section 1.3, with the modules of Table 2 as switches."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfn_models.layers.lstm import BiLstm
from tfn_models.layers.masks import check_sequence, mask_lengths
from tfn_models.layers.nonlocal_block import NonlocalBlock
from tfn_models.layers.roi_align import roi_align
from tfn_models.layers.transformer import TemporalTransformer
from tfn_models.refine.offsets import OffsetScales, decode_offsets
from tfn_models.refine.output import RefineOutput, RefineStage

MIN_SEGMENT_CLIPS = 0.1
"""Narrower segments are widened to this, in clips: offsets are in units of the width."""


@dataclass(frozen=True)
class RefineConfig:
    """Everything that decides the shape of a Refine Network. Table 2 is the four switches."""

    feature_dim: int
    """Channels of the stored features."""
    use_lstm: bool = False
    """Bidirectional LSTM over the bins of a proposal."""
    use_nonlocal: bool = False
    """Non-local block over the bins of a proposal."""
    use_action_score: bool = False
    """Supervised score of each clip, fed back into the features."""
    use_transformer: bool = False
    """Transformer over all clips of the video before RoI-Align."""
    base_channels: int = 512
    """Channels of the features over the whole video."""
    num_base_layers: int = 2
    """Convolutions of kernel 3 before everything else."""
    roi_channels: int = 128
    """Channels of the features of a proposal."""
    hidden_channels: int = 256
    """Channels of the hidden layer of each head."""
    start_bins: int = 32
    """RoI-Align bins of the context before a proposal."""
    action_bins: int = 64
    """RoI-Align bins of the proposal itself."""
    end_bins: int = 32
    """RoI-Align bins of the context after a proposal."""
    context_ratio: float = 0.5
    """Length of the context on each side, in widths of the proposal."""
    lstm_layers: int = 1
    """Layers of the bidirectional LSTM."""
    transformer_layers: int = 2
    """Layers of the Transformer."""
    transformer_heads: int = 8
    """Attention heads of the Transformer."""
    transformer_local_heads: int = 4
    """How many of the heads see only a window."""
    transformer_local_window: int = 9
    """That window, in clips, odd."""
    transformer_feedforward_channels: int = 256
    """Hidden channels of the Transformer's feed-forward part."""
    dropout: float = 0.1
    """Dropout probability in the Transformer."""
    stage_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    """IoU with ground truth that makes a proposal positive, one a stage of the cascade."""
    offset_scales: OffsetScales = OffsetScales()
    """Units of the offsets that the heads predict."""

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        sizes = ["feature_dim", "base_channels", "num_base_layers", "roi_channels"]
        sizes += ["hidden_channels", "start_bins", "action_bins", "end_bins"]
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.context_ratio <= 0:
            raise ValueError(f"context_ratio must be positive, got {self.context_ratio}")
        if not self.stage_ious or not all(0 < iou < 1 for iou in self.stage_ious):
            raise ValueError(
                f"stage_ious must be one or more of 0 < IoU < 1, got {self.stage_ious}"
            )


class RefineNetwork(nn.Module):
    """Base network over the whole video, once, then the cascade of Refine Modules."""

    def __init__(self, config: RefineConfig) -> None:
        """Build the network; new, it leaves every proposal where it is."""
        super().__init__()
        self.config = config
        channels = config.base_channels
        self.base = nn.ModuleList(
            nn.Conv1d(config.feature_dim if layer == 0 else channels, channels, 3, padding=1)
            for layer in range(config.num_base_layers)
        )
        self.action_score = ActionScore(config) if config.use_action_score else None
        self.transformer: TemporalTransformer | None = None
        if config.use_transformer:
            self.transformer = TemporalTransformer(
                channels,
                num_layers=config.transformer_layers,
                num_heads=config.transformer_heads,
                feedforward_channels=config.transformer_feedforward_channels,
                dropout=config.dropout,
                local_heads=config.transformer_local_heads,
                local_window=config.transformer_local_window,
            )
        self.stages = nn.ModuleList(RefineModule(config) for _ in config.stage_ious)

    def forward(
        self, features: Tensor, *, mask: Tensor, proposals: Tensor, proposal_mask: Tensor
    ) -> RefineOutput:
        """Refine the proposals of a batch of videos.

        Segments are fp32 under autocast too (fp64 where the features are). What is padding has no
        influence on anything, and gets no gradient.

        Args:
            features: [B, T, feature_dim], one a clip at the full rate.
            mask: [B, T] bool, True for a video's clips, at least one, False for padding after.
            proposals: [B, N, 2] start and end in clips: seconds divided by the stride, so clip k
                occupies [k, k + 1) and its centre is k + 0.5.
            proposal_mask: [B, N] bool, True for proposals, False for padding.

        Raises:
            ValueError: shapes do not fit together or a video has no clip.
        """
        lengths = self._check(features, mask, proposals, proposal_mask)
        base, action_logits = self._base_features(features, mask)
        exact = proposals.detach().to(_at_least_fp32(features.dtype))
        segments = torch.where(proposal_mask[:, :, None], exact, 0.0)
        segments = fit_segments(segments, lengths=lengths)
        stages = []
        for module, positive_iou in zip(self.stages, self.config.stage_ious, strict=True):
            iou, offsets = module(base, segments, lengths=lengths)
            moves = offsets.detach().to(segments.dtype)
            moved = decode_offsets(segments, moves, scales=self.config.offset_scales)
            stages.append(
                RefineStage(
                    input_segments=segments,
                    segments=fit_segments(moved, lengths=lengths),
                    iou=iou,
                    offsets=offsets,
                    positive_iou=positive_iou,
                )
            )
            segments = stages[-1].segments
        return RefineOutput(tuple(stages), action_logits, self.config.offset_scales)

    def _base_features(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features [B, T, base_channels], with Action Score logits [B, T] if there is a head."""
        valid = mask[:, None, :]
        x = torch.where(valid, features.transpose(1, 2), 0.0)
        for convolution in self.base:
            # Zero padding again after each layer: what a video alone has beyond its end.
            x = torch.where(valid, convolution(x).relu(), 0.0)
        x = x.transpose(1, 2)
        action_logits = None
        if self.action_score is not None:
            x, action_logits = self.action_score(x)
        if self.transformer is not None:
            x = self.transformer(x, mask)
        return x, action_logits

    def _check(
        self, features: Tensor, mask: Tensor, proposals: Tensor, proposal_mask: Tensor
    ) -> Tensor:
        """The number of clips of each video [B], once the inputs fit together."""
        check_sequence(features, mask, channels=self.config.feature_dim)
        batch, count = proposals.shape[:2]
        if proposals.shape != (features.shape[0], count, 2) or count < 1:
            raise ValueError(
                f"proposals must be [{features.shape[0]}, N, 2] with N at least 1 (padding will "
                f"do), got {list(proposals.shape)}"
            )
        if proposal_mask.shape != (batch, count) or proposal_mask.dtype != torch.bool:
            raise ValueError(
                f"proposal_mask must be bool {[batch, count]}, "
                f"got {proposal_mask.dtype} {list(proposal_mask.shape)}"
            )
        lengths = mask_lengths(mask)
        if not torch.compiler.is_compiling() and bool((lengths < 1).any()):
            raise ValueError("each video needs at least one valid clip, got a mask row of none")
        return lengths


class ActionScore(nn.Module):
    """Scores each clip for showing an action, and tells the features (paper section 1.3).

    The score is supervised. It joins the features as one learned direction times its
    probability: the same as a further channel and a projection back, but the number of channels
    stays, and so does everything behind.
    """

    def __init__(self, config: RefineConfig) -> None:
        """Build the head."""
        super().__init__()
        self.head = _head(config.base_channels, hidden=config.hidden_channels, outputs=1)
        self.embedding = nn.Linear(1, config.base_channels, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From x [B, T, C]: features that know the score [B, T, C], and its logits [B, T]."""
        logits = self.head(x)
        return x + self.embedding(logits.sigmoid()), logits[..., 0]


class RefineModule(nn.Module):
    """One stage: features of each proposal by RoI-Align, then its IoU and offsets.

    Start and end are predicted from their own half of the bins; centre, width and IoU from all.
    """

    def __init__(self, config: RefineConfig) -> None:
        """Build the module; new, its offsets are zero."""
        super().__init__()
        self.config = config
        # Projecting clips before RoI-Align is as good as projecting bins after it, as both are
        # linear, and there are far fewer clips.
        self.project = nn.Linear(config.base_channels, config.roi_channels)
        channels = config.roi_channels
        self.lstm = BiLstm(channels, num_layers=config.lstm_layers) if config.use_lstm else None
        self.nonlocal_block = NonlocalBlock(channels) if config.use_nonlocal else None
        self.convolution = nn.Conv1d(channels, channels, 3, padding=1)
        num_bins = config.start_bins + config.action_bins + config.end_bins
        self.middle = config.start_bins + config.action_bins // 2
        hidden = config.hidden_channels
        self.whole = _zero_head(num_bins * channels, hidden=hidden, outputs=3)
        self.start = _zero_head(self.middle * channels, hidden=hidden, outputs=1)
        self.end = _zero_head((num_bins - self.middle) * channels, hidden=hidden, outputs=1)

    def forward(self, base: Tensor, segments: Tensor, *, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from base features [B, T, base_channels] and segments [B, N, 2] in clips.

        Returns:
            IoU [B, N] in 0..1 and offsets [B, N, 4].
        """
        batch, count, _ = segments.shape
        bins = self._sample(self.project(base), segments, lengths=lengths).flatten(0, 1)
        if self.lstm is not None:
            bins = bins + self.lstm(bins)
        if self.nonlocal_block is not None:
            bins = self.nonlocal_block(bins)
        bins = self.convolution(bins.transpose(1, 2)).relu()
        iou_logit, center, log_width = self.whole(bins.flatten(1)).unbind(-1)
        start = self.start(bins[..., : self.middle].flatten(1))[:, 0]
        end = self.end(bins[..., self.middle :].flatten(1))[:, 0]
        offsets = torch.stack((center, log_width, start, end), dim=-1)
        # In half precision all IoUs near 1 would be one, and proposals could not be ranked.
        iou = iou_logit.to(_at_least_fp32(iou_logit.dtype)).sigmoid()
        return iou.view(batch, count), offsets.view(batch, count, 4)

    def _sample(self, features: Tensor, segments: Tensor, *, lengths: Tensor) -> Tensor:
        """Bins of start context, proposal and end context: [B, N, bins, C]."""
        config = self.config
        start, end = segments.unbind(-1)
        context = (end - start) * config.context_ratio
        before = torch.stack((start - context, start), dim=-1)
        after = torch.stack((end, end + context), dim=-1)
        parts = (
            (before, config.start_bins),
            (segments, config.action_bins),
            (after, config.end_bins),
        )
        bins = [roi_align(features, part, num_bins=n, lengths=lengths) for part, n in parts]
        return torch.cat(bins, dim=2)


def fit_segments(segments: Tensor, *, lengths: Tensor) -> Tensor:
    """Clip segments [B, N, 2] to 0..lengths [B] clips, each MIN_SEGMENT_CLIPS wide or wider."""
    last = lengths.to(segments)[:, None]
    zero = torch.zeros_like(last)
    start = segments[..., 0].clamp(zero, last - MIN_SEGMENT_CLIPS)
    end = segments[..., 1].clamp(start + MIN_SEGMENT_CLIPS, last)
    return torch.stack((start, end), dim=-1)


def build_refine(config: RefineConfig) -> RefineNetwork:
    """The Refine Network of a configuration, with random weights from torch's global seed."""
    return RefineNetwork(config)


def _at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _head(channels: int, *, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _zero_head(channels: int, *, hidden: int, outputs: int) -> nn.Sequential:
    """A head that answers zero until it has learned something."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), last)
