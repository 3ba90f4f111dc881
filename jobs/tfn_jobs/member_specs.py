"""What a user may set of an ensemble member; a spec states what differs from these defaults."""

from typing import Annotated, Literal

from pydantic import Field

from tfn_platform.spec import Spec
from tfn_platform.training import TrainingSettings

MemberName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
UNTRAINED = "untrained"
"""The name of the members that are left as initialised, for comparison."""


class ClassifierSpec(Spec):
    """A video classifier on the stored features (paper, section 1.1 and table 1)."""

    name: MemberName
    """Name of the member, unique among the classifiers."""
    pooling: Literal["mean", "transformer"] = "mean"
    """Average the clips, or let a Transformer look at them in order first."""
    hidden_channels: int = Field(0, ge=0)
    """Width of a hidden layer before the last one; 0 for none."""
    transformer_channels: int = Field(512, ge=8)
    """Width of the Transformer."""
    transformer_layers: int = Field(2, ge=1)
    """Layers of the Transformer."""
    transformer_heads: int = Field(8, ge=1)
    """Attention heads of the Transformer; half of them look at neighbours only."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of features dropped in training."""
    nuclear_norm_weight: float = Field(0.0, ge=0)
    """Weight of the Batch Nuclear-norm term; 0 switches it off."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Probability spread over the other classes."""
    training: TrainingSettings = TrainingSettings(learning_rate=1e-3, num_epochs=20)
    """How it is trained."""


class BmnSpec(Spec):
    """A Boundary-Matching Network (paper, section 1.2 and table 3)."""

    name: MemberName
    """Name of the member, unique among the BMNs."""
    num_bins: int = Field(200, ge=2, le=1024)
    """T = D: bins that a video's time is resized to, and rows of its boundary map."""
    num_lstm_layers: int = Field(0, ge=0, le=4)
    """Bi-LSTM layers in the base module."""
    base_channels: int = Field(256, ge=4)
    """Width of the base module."""
    sequence_channels: int = Field(128, ge=4)
    """Channels of the sequence that the boundary-matching layer samples."""
    map_channels: int = Field(512, ge=4)
    """Channels that the boundary-matching layer gives out."""
    conv_channels: int = Field(128, ge=4)
    """Channels of the map's convolutions."""
    num_samples: int = Field(32, ge=2)
    """Points sampled in each window."""
    min_segment_seconds: float = Field(0.0, ge=0)
    """Shorter segments are left out of training."""
    training: TrainingSettings = TrainingSettings(schedule="step", warmup_steps=1000)
    """How it is trained."""


class RefinerSpec(Spec):
    """A three-stage cascade Refine Network (paper, section 1.3 and table 2)."""

    name: MemberName
    """Name of the member, unique among the refiners."""
    use_lstm: bool = False
    """Bi-LSTM on the RoI features."""
    use_nonlocal: bool = False
    """Non-local block on the RoI features."""
    use_action_score: bool = False
    """Supervised Action Score on each clip."""
    use_transformer: bool = False
    """Transformer on the whole video's features."""
    base_channels: int = Field(512, ge=8)
    """Width of the base network."""
    roi_channels: int = Field(128, ge=8)
    """Width of the RoI features."""
    hidden_channels: int = Field(256, ge=8)
    """Width of the heads."""
    action_bins: int = Field(64, ge=2)
    """RoI bins inside a proposal."""
    context_bins: int = Field(32, ge=1)
    """RoI bins of the context on each side."""
    num_training_proposals: int = Field(64, ge=1)
    """Best proposals a video that it is trained on."""
    min_segment_seconds: float = Field(0.0, ge=0)
    """Shorter segments are left out of training."""
    training: TrainingSettings = TrainingSettings(schedule="step", warmup_steps=1000)
    """How it is trained."""


MemberSpec = ClassifierSpec | BmnSpec | RefinerSpec
