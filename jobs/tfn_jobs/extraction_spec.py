"""How features are extracted, as a spec states it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tfn_platform.spec import Spec


class ExtractionSpec(Spec):
    """Decoding, the backbone's batches, and what is kept of its output."""

    decoder: Literal["pyav", "nvdec"] = "pyav"
    """`nvdec` decodes on the video engine of the GPU that runs the backbone; it needs an NVIDIA GPU
    in each extracting actor, torchcodec (the extra `nvdec`) and FFmpeg's libraries. What it cannot
    decode PyAV does, and the run says how many and why. Features of the two differ a little, as
    their pixels do by rounding and resizing. The engine is not supervised as PyAV is: a file that
    crashes it takes the actor along. Several actors a GPU (`resources.model_gpus: 0.5`) keep both
    the engine and the backbone at work; `resources.decode_actors` are not used."""
    batching: Literal["best_fit", "fixed"] = "best_fit"
    """`best_fit` cuts each video's clips into batches of `backbone.batch_clips` and its last ones
    into halves, quarters, ... of that; `fixed` fills batches up, with clips of other videos and in
    the end with copies, so that the backbone sees one shape only."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone."""
    feature_type: Literal["float16", "float32"] = "float16"
    """What features are stored as."""
    damage: Literal["quarantine", "salvage"] = "quarantine"
    """What becomes of a video whose end is missing or some of whose frames do not decode: left out,
    or used as far as it goes and listed in the table DAMAGED."""
    stall_seconds: float = Field(120.0, gt=0)
    """A video whose decoder gives no sign of life for so long is given up."""
    max_attempts: int = Field(2, ge=1)
    """How often a video is tried whose decoder crashed, stalled, or could not reach the storage."""
    patience_seconds: float = Field(600.0, gt=0)
    """Where nothing at all moves for so long, as when a machine is lost and none replaces it, what
    is in flight is begun again on the machines that are left."""
    journal_seconds: float = Field(20.0, ge=0)
    """Finished videos are put into storage at least so often; those finished after that are done
    again where the whole job is killed."""

    @model_validator(mode="after")
    def _is_more_patient_with_all_than_with_one(self) -> Self:
        longest = self.stall_seconds * self.max_attempts
        if self.patience_seconds <= longest:
            raise ValueError(
                f"patience_seconds must be above stall_seconds * max_attempts = {longest:g}, got "
                f"{self.patience_seconds:g}: a single video that hangs would stop all the others"
            )
        return self
