"""How a job tells the pipeline about an epoch."""

from collections.abc import Callable

from tfn_platform.training import EpochReport

OnEpoch = Callable[[EpochReport], None]
"""Called with the figures of each epoch of one training."""
OnMemberEpoch = Callable[[str, EpochReport], None]
"""Called with a stage's name and the figures of one of its epochs."""
