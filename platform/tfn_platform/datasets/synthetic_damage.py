"""Spoil a video file the ways that files of real data sets are spoilt."""

import io
from enum import StrEnum

import av
import numpy as np

from tfn_platform.quarantine_reason import QuarantineReason


class Damage(StrEnum):
    """What was done to a file."""

    ZERO_BYTES = "zero_bytes"
    RANDOM_BYTES = "random_bytes"
    TRUNCATED_INDEX = "truncated_index"
    TRUNCATED_FAST_START = "truncated_fast_start"
    TEXT_AS_MP4 = "text_as_mp4"
    AUDIO_ONLY = "audio_only"


DAMAGE_REASONS = {
    Damage.ZERO_BYTES: QuarantineReason.EMPTY_FILE,
    Damage.RANDOM_BYTES: QuarantineReason.NOT_A_VIDEO,
    Damage.TRUNCATED_INDEX: QuarantineReason.NO_INDEX,
    Damage.TRUNCATED_FAST_START: QuarantineReason.TRUNCATED,
    Damage.TEXT_AS_MP4: QuarantineReason.NOT_A_VIDEO,
    Damage.AUDIO_ONLY: QuarantineReason.NO_VIDEO_STREAM,
}
"""What reading such a file must be quarantined for."""


def damage_video(data: bytes, damage: Damage, *, rng: np.random.Generator) -> bytes:
    """Spoil the mp4 file `data`; TRUNCATED_FAST_START needs its index to come first."""
    if damage is Damage.ZERO_BYTES:
        return b""
    if damage is Damage.RANDOM_BYTES:
        return rng.bytes(20_000)
    if damage in (Damage.TRUNCATED_INDEX, Damage.TRUNCATED_FAST_START):
        return data[: int(0.4 * len(data))]
    if damage is Damage.TEXT_AS_MP4:
        return b"<html><body>404: this video is not available</body></html>\n"
    return _audio_only()


def _audio_only(seconds: int = 2, rate_hz: int = 16_000) -> bytes:
    """An mp4 file that holds nothing but a tone."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate_hz, layout="mono")
        stream.codec_context.options = {"flags": "+bitexact"}
        tone = np.sin(np.arange(seconds * rate_hz, dtype=np.float32) * 0.1)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()
