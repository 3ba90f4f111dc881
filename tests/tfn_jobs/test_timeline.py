import re

import numpy as np
import pytest
from matplotlib.axes import Axes

from tfn_jobs.figure_style import inline_svg
from tfn_jobs.timeline import TimedAction, class_colors, timeline_figure

COLORS = class_colors(["jump", "swim"])
TRUTH = [TimedAction("jump", 1.0, 5.0), TimedAction("swim", 6.0, 9.0)]
FOUND = [
    TimedAction("swim", 5.5, 9.5, 0.25),
    TimedAction("jump", 1.5, 5.0, 0.5),
    TimedAction("jump", 2.0, 6.0, 0.125),
]


def draw(truth: list[TimedAction], found: list[TimedAction]) -> Axes:
    return timeline_figure(truth, found, duration_seconds=10.0, colors=COLORS).axes[0]


def test_bars_stand_where_the_actions_are() -> None:
    axes = draw(TRUTH, FOUND)
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    # By lane: what overlaps a surer detection goes one lane down.
    assert bars == [(1.0, 5.0), (6.0, 9.0), (1.5, 5.0), (5.5, 9.5), (2.0, 6.0)]
    lanes = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
    np.testing.assert_allclose(lanes, [0, 0, 1.5, 1.5, 2.5])
    assert axes.get_xlim() == (0.0, 10.0)
    # Lane 0 is on top.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_surer_detections_are_more_opaque_and_say_their_score() -> None:
    axes = draw(TRUTH, FOUND)
    np.testing.assert_allclose([b.get_alpha() for b in axes.patches], [1, 1, 1, 0.6, 0.4])
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["jump", "swim", "0.50", "0.25", "0.12"]


@pytest.mark.parametrize("score", [0.0, 0.1, 0.39, 1.0])
def test_any_score_is_drawn(score: float) -> None:
    """The opacity of the surest detection was once 1.0000000000000002, which matplotlib refuses."""
    axes = draw(TRUTH, [TimedAction("jump", 1.0, 2.0, score)])
    assert axes.patches[-1].get_alpha() in (1.0, pytest.approx(0.2))


def test_no_detections_and_no_truth() -> None:
    assert len(draw(TRUTH, []).patches) == 2
    assert len(draw([], FOUND).patches) == 3


def test_text_that_does_not_fit_is_left_out() -> None:
    axes = draw([TimedAction("jump", 1.0, 1.1)], [])
    assert list(axes.texts) == []


def test_long_videos_have_a_clock() -> None:
    figure = timeline_figure(TRUTH, FOUND, duration_seconds=200.0, colors=COLORS)
    svg = inline_svg(figure, prefix="x")
    assert re.search(r">1:00<|>1:00\.0<", svg)


def test_colours_repeat_when_they_run_out() -> None:
    colors = class_colors([f"class {number}" for number in range(200)])
    assert len(colors) == 200
    assert len(set(list(colors.values())[:8])) == 8
