import io
from fractions import Fraction

import av
import numpy as np

from tfn_platform.datasets.synthetic_frames import (
    Blob,
    Scene,
    draw_frames,
    encode_mp4,
    make_texture,
)
from tfn_platform.datasets.synthetic_motion import Trajectory


def test_a_disc_is_where_it_should_be() -> None:
    path = Trajectory(np.array([0.25]), np.array([-0.125]), np.array([0.1]))
    scene = Scene(
        width=96,
        height=64,
        texture=np.full((256, 320), 100, np.float32),
        texture_corner=np.zeros((1, 2), np.int64),
        tint=(128.0, 128.0),
        blobs=[Blob(path, luma=200.0, chroma_blue=90.0, chroma_red=160.0)],
    )
    (frame,) = draw_frames(scene)
    luma = frame[:64].astype(float) - 100
    rows, columns = np.mgrid[:64, :96] + 0.5
    assert np.isclose(np.average(columns, weights=luma), 48 + 0.25 * 64, atol=0.2)
    assert np.isclose(np.average(rows, weights=luma), 32 - 0.125 * 64, atol=0.2)
    assert frame[24, 64] == 200
    assert 145 <= frame[24, 70] <= 160  # half way at the radius of 6.4 pixels


def test_a_texture_has_zero_mean_and_unit_variance() -> None:
    texture = make_texture((120, 200), cell_pixels=17, rng=np.random.default_rng(0))
    assert texture.shape == (120, 200)
    np.testing.assert_allclose([texture.mean(), texture.std()], [0, 1], atol=1e-5)


def test_times_survive_encoding() -> None:
    ticks = [0, 3000, 9000, 10_800]
    frames = (np.full((48, 64), 30 * n + 60, np.uint8) for n in range(4))
    data = encode_mp4(frames, ticks=ticks, frame_rate=Fraction(25))
    with av.open(io.BytesIO(data)) as container:
        decoded = [(f.pts * f.time_base, f.duration * f.time_base) for f in container.decode()]
    assert [start for start, _ in decoded] == [Fraction(tick, 90_000) for tick in ticks]
    assert decoded[-1][1] == Fraction(1, 25)
