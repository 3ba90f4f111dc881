import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tfn_platform.datasets.synthetic import SyntheticConfig, render_video
from tfn_platform.quarantine_reason import QuarantineReason
from tfn_platform.video import SamplingGrid, iter_chunks
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
        assert reason_of(tmp_path / name) is QuarantineReason.PLAYLIST


def test_an_address_and_a_path_are_the_same_video(tmp_path: Path, video_bytes: bytes) -> None:
    path = tmp_path / "a video.mp4"
    path.write_bytes(video_bytes)
    with open_video(str(path)) as local:
        seconds = local.declared_seconds()
        assert seconds is not None and seconds >= 2
    (tmp_path / "video.mp4").write_bytes(video_bytes)
    with open_video(f"file://{tmp_path}/video.mp4") as remote:
        assert remote.declared_seconds() == seconds


def test_addresses_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"x")
    assert reason_of(tmp_path / "video.mp4" / "inside.mp4") is QuarantineReason.MISSING_FILE
    assert reason_of(f"{tmp_path}/{'long' * 100}.mp4") is QuarantineReason.NOT_A_FILE
    assert reason_of("gopher://nowhere/video.mp4") is QuarantineReason.NOT_A_FILE
    with pytest.raises(VideoError, match="no address") as caught, open_video("video\0.mp4"):
        pass
    assert caught.value.reason is QuarantineReason.NOT_A_FILE


@pytest.mark.parametrize(
    ("message", "reason"),
    [("AWS Error ACCESS_DENIED during HeadObject", QuarantineReason.PERMISSION_DENIED)],
)
def test_a_storage_that_refuses(
    monkeypatch: pytest.MonkeyPatch, message: str, reason: QuarantineReason
) -> None:
    def refuse(uri: str) -> None:
        raise OSError(message)

    monkeypatch.setattr("tfn_platform.video_source._open_remote", refuse)
    assert reason_of("s3://bucket/video.mp4") is reason


def test_a_storage_that_fails_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uri: str) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during HeadObject")

    monkeypatch.setattr("tfn_platform.video_source._open_remote", fail)
    with pytest.raises(OSError, match="NETWORK"), open_video("s3://bucket/video.mp4"):
        pass


def test_local_files_need_no_arrow() -> None:
    """A decoding process of local files starts in a fraction of the time without it."""
    script = (
        "import sys\nfrom tfn_platform import decode_child\n"
        "heavy = {'pyarrow', 'torch', 'ray', 'pydantic', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_one_picture_is_no_video(tmp_path: Path) -> None:
    """An animation of one picture shows itself at its end only."""
    path = tmp_path / "video.gif"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    grid = SamplingGrid(Fraction(15), Fraction(1, 2), frames_per_clip=4, short_side=32)
    with pytest.raises(VideoError) as caught:
        list(iter_chunks(str(path), grid, clips_per_chunk=1, salvage=True))
    assert caught.value.reason is QuarantineReason.STILL_PICTURE
