"""Where the blob of a synthetic video is, and how large, at any time.

Six actions that only motion over time tells apart. At a random instant of any action, and of the
time between actions, the blob's offset has zero mean, the same variance along x and y and no
correlation, and its size the same distribution: a single frame gives nothing away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ACTIONS = (
    "oscillate_x",
    "oscillate_y",
    "oscillate_diagonal",
    "circle_clockwise",
    "circle_counterclockwise",
    "pulse",
)

# Moving in a straight line between two resting places shrinks the variance of the offset; resting
# places this much further out make up for it.
REST_SCALE = 1.1


@dataclass(frozen=True)
class Trajectory:
    """Centre and radius of a blob at F instants, [F] each, in units of the frame's short side.

    Positions are relative to the frame's centre, y points down.
    """

    x: Floats
    y: Floats
    radius: Floats

    def __post_init__(self) -> None:
        """Check that the three arrays describe the same instants."""
        if not self.x.shape == self.y.shape == self.radius.shape or self.x.ndim != 1:
            raise ValueError("x, y and radius must be vectors of one length")


def action_states(action: str, times: Floats, *, rng: np.random.Generator) -> Floats:
    """States (x, y, size) in -1..1 at `times` seconds [F] since the action's start, [F, 3]."""
    frequency_hz = rng.uniform(0.8, 1.8)
    phase = 2 * np.pi * (frequency_hz * times + rng.uniform())
    along = np.cos(phase)
    rest_angle, across_angle, size_angle = 2 * np.pi * rng.uniform(size=3)
    across = np.full_like(times, np.cos(across_angle))
    size = np.full_like(times, np.cos(size_angle))
    if action == "oscillate_x":
        return np.stack([along, across, size], axis=1)
    if action == "oscillate_y":
        return np.stack([across, along, size], axis=1)
    if action == "oscillate_diagonal":
        return np.stack([(along + across) / 2**0.5, (along - across) / 2**0.5, size], axis=1)
    if action in ("circle_clockwise", "circle_counterclockwise"):
        sign = 1.0 if action == "circle_clockwise" else -1.0
        return np.stack([along, sign * np.sin(phase), size], axis=1)
    if action == "pulse":
        still = np.ones_like(times)
        return np.stack([still * np.cos(rest_angle), still * np.sin(rest_angle), along], axis=1)
    raise ValueError(f"action must be one of {', '.join(ACTIONS)}, got {action!r}")


def blob_states(
    times: Floats, *, spans: Sequence[tuple[float, float]], action: str, rng: np.random.Generator
) -> Floats:
    """States [F, 3] at `times`: `action` inside each span, rest and random moves outside."""
    states = np.zeros((times.size, 3))
    knots = [(float(times[0]), _rest_state(rng))]
    for start, end in spans:
        inside = (times >= start) & (times < end)
        local = np.concatenate([[0.0], times[inside] - start, [end - start]])
        performed = action_states(action, local, rng=rng)
        knots += _wander(knots[-1], until=(start, performed[0]), rng=rng)
        knots.append((end, performed[-1]))
        states[inside] = performed[1:-1]
    last = max(float(times[-1]), knots[-1][0]) + 1.0
    knots += _wander(knots[-1], until=(last, _rest_state(rng)), rng=rng)
    outside = np.ones(times.size, dtype=bool)
    for start, end in spans:
        outside &= (times < start) | (times >= end)
    states[outside] = _interpolate(knots, times[outside])
    return states


def slow_path(times: Floats, *, reach: float, rng: np.random.Generator) -> Floats:
    """A smooth random path [F, 2] within -reach..reach, below 0.3 Hz: slower than any action."""
    frequencies_hz = rng.uniform(0.04, 0.3, size=(3, 2))
    phases = rng.uniform(0, 2 * np.pi, size=(3, 2))
    waves = np.sin(2 * np.pi * frequencies_hz * times[:, None, None] + phases)
    return np.asarray(reach * waves.mean(axis=1))


def _rest_state(rng: np.random.Generator) -> Floats:
    """A state at rest with the marginals of a moving one: on the circle, any phase of the pulse."""
    angle, size_angle = 2 * np.pi * rng.uniform(size=2)
    return np.asarray(REST_SCALE * np.array([np.cos(angle), np.sin(angle), np.cos(size_angle)]))


def _wander(
    last: tuple[float, Floats], *, until: tuple[float, Floats], rng: np.random.Generator
) -> list[tuple[float, Floats]]:
    """Knots after `last` that rest, move, rest... and arrive at `until` exactly."""
    time, state = last
    knots: list[tuple[float, Floats]] = []
    while True:
        rest, move = rng.uniform(0.2, 1.2), rng.uniform(0.5, 1.2)
        if time + rest + move + 0.5 > until[0]:
            return [*knots, until]
        knots += [(time + rest, state), (time + rest + move, state := _rest_state(rng))]
        time += rest + move


def _interpolate(knots: Sequence[tuple[float, Floats]], times: Floats) -> Floats:
    """Ease from knot to knot (smoothstep), [F, 3]."""
    knot_times = np.array([time for time, _ in knots])
    knot_states = np.stack([state for _, state in knots])
    after = np.clip(np.searchsorted(knot_times, times, side="right"), 1, len(knots) - 1)
    begin, end = knot_times[after - 1], knot_times[after]
    part = np.clip((times - begin) / np.maximum(end - begin, 1e-9), 0, 1)
    eased = (part * part * (3 - 2 * part))[:, None]
    return np.asarray(knot_states[after - 1] * (1 - eased) + knot_states[after] * eased)
