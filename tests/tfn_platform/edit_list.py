"""Videos whose start was cut off without encoding anew, as phones and editors do."""

from fractions import Fraction
from pathlib import Path

from tfn_platform.video_source import open_video


def hide_start(path: Path, seconds: Fraction) -> None:
    """Have the mp4's edit list begin so much later; it must hold no B-frames."""
    with open_video(str(path)) as source:
        hidden = round(seconds / source.time_base)
    data = bytearray(path.read_bytes())
    # After the name: version and flags, number of entries, duration of the first one.
    media_time_at = data.index(b"elst") + 4 + 4 + 4 + 4
    assert data[media_time_at : media_time_at + 4] == bytes(4)
    data[media_time_at : media_time_at + 4] = hidden.to_bytes(4, "big")
    path.write_bytes(data)
