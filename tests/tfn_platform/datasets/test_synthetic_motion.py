"""The blob's true state at one instant, more than any picture shows, must not tell the action."""

import numpy as np
import pytest

from tfn_platform.datasets.synthetic_motion import (
    ACTIONS,
    REST_SCALE,
    action_states,
    blob_states,
    slow_path,
)

NUM_SEGMENTS = 600


def one_instant_of_each(action: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    instants = [action_states(action, rng.uniform(0, 8, 1), rng=rng) for _ in range(NUM_SEGMENTS)]
    return np.concatenate(instants)


def test_every_action_has_the_same_moments_at_one_instant() -> None:
    for seed, action in enumerate(ACTIONS):
        states = one_instant_of_each(action, seed)
        np.testing.assert_allclose(states.mean(axis=0), 0, atol=0.11)
        np.testing.assert_allclose(np.cov(states.T), np.eye(3) / 2, atol=0.08)


def test_rest_has_the_moments_of_action() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(0, 40, 1.7)
    rest = np.concatenate(
        [blob_states(times, spans=[], action="pulse", rng=rng) for _ in range(200)]
    )
    np.testing.assert_allclose(rest.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(rest.T), np.eye(3) / 2, atol=0.06)
    assert np.abs(rest).max() <= REST_SCALE


def test_the_blob_never_jumps_and_acts_exactly_in_its_segment() -> None:
    times = np.arange(0, 12, 0.001)
    for action in ACTIONS:
        states = blob_states(
            times, spans=[(1.0, 3.0), (3.8, 9.0)], action=action, rng=np.random.default_rng(5)
        )
        # The fastest action moves 2 pi * 1.8 Hz; a move between rests at most 1.5 * 2.2 / 0.5.
        assert np.abs(np.diff(states, axis=0)).max() < 0.013
        inside = (times >= 3.8) & (times < 9.0)
        acting = {"oscillate_x": 0, "oscillate_y": 1, "pulse": 2}.get(action)
        if acting is not None:
            still = [axis for axis in range(3) if axis != acting]
            assert np.ptp(states[inside][:, still], axis=0).max() < 1e-12
            assert np.ptp(states[inside, acting]) > 1.9


def test_circles_run_the_way_they_are_called() -> None:
    times = np.arange(0, 4, 0.01)
    for action, sign in (("circle_clockwise", 1), ("circle_counterclockwise", -1)):
        x, y, _ = action_states(action, times, rng=np.random.default_rng(0)).T
        # With y pointing down, a positive area is swept clockwise on the screen.
        assert sign * np.sum(x[:-1] * np.diff(y) - y[:-1] * np.diff(x)) > 10


def test_a_slow_path_stays_within_reach() -> None:
    path = slow_path(np.arange(0, 100, 0.04), reach=0.3, rng=np.random.default_rng(0))
    assert path.shape == (2500, 2)
    assert np.abs(path).max() <= 0.3


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of oscillate_x, .* got 'jump'"):
        action_states("jump", np.zeros(1), rng=np.random.default_rng(0))
