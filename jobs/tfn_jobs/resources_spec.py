"""What tasks occupy of a machine or a cluster, as a spec states it."""

from pydantic import Field

from tfn_platform.spec import Spec


class ResourcesSpec(Spec):
    """What tasks occupy. It changes results by rounding alone: a GPU's differs from a CPU's."""

    decode_actors: int | None = Field(None, ge=1)
    """Actors that decode videos, each with one decoder; null lets their number follow the work, up
    to what the CPUs hold."""
    decode_cpus: float = Field(1, gt=0)
    """Logical CPUs of a decoding actor."""
    model_actors: int | None = Field(None, ge=1)
    """Actors that run the backbone in extraction; null lets their number follow the work, up to
    what the GPUs hold, or without `model_gpus` the CPUs."""
    model_cpus: float = Field(1, ge=0)
    """Logical CPUs of an extracting actor."""
    model_gpus: float | None = Field(None, ge=0)
    """GPUs of an extracting actor; null is 1 where the cluster has any, else 0."""
    finetune_cpus: float = Field(2, ge=0)
    """Logical CPUs of a fine-tuning worker."""
    finetune_gpus: float = Field(0, ge=0)
    """GPUs of a fine-tuning worker."""
    member_cpus: float = Field(1, ge=0)
    """Logical CPUs of a member's training."""
    member_gpus: float = Field(0, ge=0)
    """GPUs of a member's training; fractions share a card."""
