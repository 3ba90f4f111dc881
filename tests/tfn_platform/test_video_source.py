import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video_source import VideoError, open_video

NOBODY = 65534


@pytest.fixture(scope="module")
def video_bytes() -> bytes:
    config = SyntheticConfig(
        num_training=1, min_duration_seconds=2, max_duration_seconds=3, min_short_side=32
    )
    return render_video(config, 0).data


def reason_of(uri: Path | str) -> QuarantineReason:
    with pytest.raises(VideoError) as caught, open_video(str(uri)):
        pass
    assert str(uri) in caught.value.detail
    return caught.value.reason


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert reason_of(tmp_path / "nowhere.mp4") is QuarantineReason.MISSING_FILE
    assert reason_of(tmp_path) is QuarantineReason.NOT_A_FILE
    assert reason_of(tmp_path / "empty.mp4") is QuarantineReason.EMPTY_FILE
    assert reason_of(f"file://{tmp_path}/nowhere.mp4") is QuarantineReason.MISSING_FILE
    assert reason_of(f"file://{tmp_path}") is QuarantineReason.NOT_A_FILE


def test_a_socket_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("video.mp4")
        assert reason_of("video.mp4") is QuarantineReason.NOT_A_FILE


@contextmanager
def no_superuser() -> Iterator[None]:
    """Be somebody who may not read everything, for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    with no_superuser():
        assert reason_of(path) is QuarantineReason.PERMISSION_DENIED


def test_a_playlist_does_not_open_other_files(tmp_path: Path, video_bytes: bytes) -> None:
    """What a data set's file says must not make a worker read the disk or the network."""
    (tmp_path / "secret.mp4").write_bytes(video_bytes)
    lists = {
        "concat.mp4": f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n",
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/secret.mp4\n"
        "#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        assert reason_of(tmp_path / name) in (
            QuarantineReason.NOT_A_VIDEO,
            QuarantineReason.NO_VIDEO_STREAM,
        )


def test_an_address_and_a_path_are_the_same_video(tmp_path: Path, video_bytes: bytes) -> None:
    path = tmp_path / "a video.mp4"
    path.write_bytes(video_bytes)
    with open_video(str(path)) as local:
        seconds = local.declared_seconds()
        assert seconds is not None and seconds >= 2
    (tmp_path / "video.mp4").write_bytes(video_bytes)
    with open_video(f"file://{tmp_path}/video.mp4") as remote:
        assert remote.declared_seconds() == seconds
