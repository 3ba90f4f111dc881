"""Why a video could not be used."""

from enum import StrEnum


class QuarantineReason(StrEnum):
    """The values of the column `reason` of the QUARANTINE table."""

    MISSING_FILE = "missing_file"
    PERMISSION_DENIED = "permission_denied"
    NOT_A_FILE = "not_a_file"
    EMPTY_FILE = "empty_file"
    NOT_A_VIDEO = "not_a_video"
    """Nothing that FFmpeg knows: noise, text, a web page with an error."""
    ARCHIVE = "archive"
    PLAYLIST = "playlist"
    """A list of other files, none of which is opened."""
    SUBTITLES = "subtitles"
    STILL_PICTURE = "still_picture"
    """A picture file, whatever its name."""
    NO_INDEX = "no_index"
    """An mp4 without its index (`moov`), mostly one whose download stopped early."""
    NO_VIDEO_STREAM = "no_video_stream"
    EMPTY_STREAM = "empty_stream"
    """A video stream without a single packet."""
    NO_DECODER = "no_decoder"
    """A codec that this FFmpeg does not know."""
    ENCRYPTED = "encrypted"
    FRAME_TOO_LARGE = "frame_too_large"
    """More pixels than any camera's: decoding it would fill the memory."""
    TRUNCATED = "truncated"
    CORRUPT_FRAMES = "corrupt_frames"
    BAD_TIMESTAMPS = "bad_timestamps"
    ABSURD_DURATION = "absurd_duration"
    """The file declares a duration that no video has."""
    DURATION_MISMATCH = "duration_mismatch"
    """The file is shorter or longer than its annotation says."""
    DECODER_ERROR = "decoder_error"
    DECODER_CRASHED = "decoder_crashed"
    """The decoding process died of this file."""
    TIMED_OUT = "timed_out"
    """The decoding process gave no sign of life."""
    STORAGE_ERROR = "storage_error"
    """Reading the bytes failed."""
    FEATURES_NOT_FINITE = "features_not_finite"
    """The backbone made numbers of it that cannot be stored."""

    @property
    def is_transient(self) -> bool:
        """Whether the next attempt may go better: it need not be the file's fault."""
        return self in _TRANSIENT

    @property
    def is_recoverable(self) -> bool:
        """Whether what did decode is worth using, where the user asks for that."""
        return self in _RECOVERABLE


_TRANSIENT = frozenset(
    {
        QuarantineReason.DECODER_CRASHED,
        QuarantineReason.TIMED_OUT,
        QuarantineReason.STORAGE_ERROR,
    }
)
_RECOVERABLE = frozenset(
    {
        QuarantineReason.TRUNCATED,
        QuarantineReason.CORRUPT_FRAMES,
        QuarantineReason.BAD_TIMESTAMPS,
        QuarantineReason.ABSURD_DURATION,
    }
)
