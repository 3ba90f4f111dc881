import numpy as np

from tfn_platform.datasets.synthetic_motion import ACTIONS
from tfn_platform.datasets.synthetic_scene import draw_scene


def test_the_acting_blob_stays_inside_the_central_square() -> None:
    times = np.arange(0, 10, 0.05)
    for seed in range(60):
        scene = draw_scene(
            times,
            spans=[(1.0, 4.0)],
            action=ACTIONS[seed % 6],
            short_side=48,
            rng=np.random.default_rng(seed),
        )
        assert min(scene.width, scene.height) == 48
        path = scene.blobs[-1].trajectory
        # At most a shake or a pulse at the very edge may be cut off.
        assert np.abs([path.x, path.y]).max() < 0.5
        assert 0.04 < path.radius.min() and path.radius.max() < 0.18
        assert scene.texture_corner.min() >= 0
        assert (scene.texture_corner.max(axis=0) <= 2 * 48).all()


def test_looks_do_not_depend_on_the_action() -> None:
    scenes = [
        draw_scene(
            np.arange(0, 3, 0.1),
            spans=[(0.5, 2.0)],
            action=action,
            short_side=48,
            rng=np.random.default_rng(3),
        )
        for action in ACTIONS
    ]
    for scene in scenes:
        np.testing.assert_array_equal(scene.texture, scenes[0].texture)
        assert (scene.width, scene.height) == (scenes[0].width, scenes[0].height)
        assert scene.tint == scenes[0].tint
