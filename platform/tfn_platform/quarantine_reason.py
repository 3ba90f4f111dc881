"""Why a video could not be used."""

from enum import StrEnum


class QuarantineReason(StrEnum):
    """The values of the column `reason` of the QUARANTINE table."""

    MISSING_FILE = "missing_file"
    PERMISSION_DENIED = "permission_denied"
    NOT_A_FILE = "not_a_file"
    EMPTY_FILE = "empty_file"
    NOT_A_VIDEO = "not_a_video"
    NO_VIDEO_STREAM = "no_video_stream"
    TRUNCATED = "truncated"
    CORRUPT_FRAMES = "corrupt_frames"
    BAD_TIMESTAMPS = "bad_timestamps"
    DURATION_MISMATCH = "duration_mismatch"
    DECODER_ERROR = "decoder_error"
    TIMED_OUT = "timed_out"
