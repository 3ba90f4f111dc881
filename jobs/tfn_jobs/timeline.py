"""The picture of one video in time: what is annotated above what was detected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tfn_jobs.figure_style import (
    CLASS_COLORS,
    FULL_WIDTH_INCHES,
    new_figure,
    shorten,
    styled,
    text_on,
    tidy,
)

LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class TimedAction:
    """An action on a timeline, in seconds; annotated ones have score 1."""

    label: str
    start_seconds: float
    end_seconds: float
    score: float = 1.0


@styled
def timeline_figure(
    annotated: Sequence[TimedAction],
    detected: Sequence[TimedAction],
    *,
    duration_seconds: float,
    colors: Mapping[str, str],
) -> Figure:
    """The annotated actions of one video above what was detected, the surest detections on top.

    Args:
        annotated: ground truth.
        detected: detections; overlapping ones go to lanes below one another.
        duration_seconds: length of the video.
        colors: the colour of each label.
    """
    lanes = _lanes(annotated)
    below = _lanes(sorted(detected, key=lambda action: -action.score))
    num_lanes = len(lanes) + len(below)
    labels = dict.fromkeys(action.label for action in [*annotated, *detected])
    num_legend_rows = -(-len(labels) // LEGEND_COLUMNS)
    figure = new_figure(FULL_WIDTH_INCHES, 0.42 + 0.2 * (num_lanes + num_legend_rows))
    axes = tidy(figure.add_subplot(), grid="x")
    top = max((action.score for action in detected), default=1.0) or 1.0
    for height, lane in enumerate([*lanes, *below]):
        is_truth = height < len(lanes)
        # A gap of half a lane parts the truth from the detections.
        y = height + (0 if is_truth else 0.5)
        for action in lane:
            opacity = 1.0 if is_truth else 1 - 0.8 * (1 - action.score / top)
            text = shorten(action.label) if is_truth else f"{action.score:.2f}"
            _draw_action(axes, action, y, colors[action.label], opacity, text, duration_seconds)
    axes.set_xlim(0, duration_seconds)
    axes.set_ylim(num_lanes + 0.1, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _clock(seconds)))
    places = [(len(lanes) - 1) / 2, len(lanes) + len(below) / 2]
    axes.set_yticks(places, ["annotated", "detected"])
    axes.spines["left"].set_visible(False)
    handles = [Patch(color=colors[label], label=shorten(label)) for label in labels]
    figure.legend(
        handles=handles, loc="outside upper right", ncols=LEGEND_COLUMNS, handlelength=0.9
    )
    return figure


def _draw_action(
    axes: Axes,
    action: TimedAction,
    y: float,
    color: str,
    opacity: float,
    text: str,
    duration_seconds: float,
) -> None:
    length = action.end_seconds - action.start_seconds
    axes.barh(
        y, length, left=action.start_seconds, height=0.8, color=color, alpha=opacity, linewidth=0
    )
    # About 130 characters fit on the whole width.
    if length / duration_seconds * 130 > len(text) + 1:
        middle = action.start_seconds + length / 2
        ink = text_on(color, opacity=opacity)
        axes.annotate(text, (middle, y), ha="center", va="center_baseline", size=8, color=ink)


def _lanes(actions: Sequence[TimedAction]) -> list[list[TimedAction]]:
    """Put each action into the first lane where it overlaps nothing."""
    lanes: list[list[TimedAction]] = []
    for action in actions:
        for lane in lanes:
            if all(
                action.end_seconds <= other.start_seconds
                or action.start_seconds >= other.end_seconds
                for other in lane
            ):
                lane.append(action)
                break
        else:
            lanes.append([action])
    return lanes


def class_colors(class_names: Sequence[str]) -> dict[str, str]:
    """A colour for each class; they repeat when there are more classes than colours."""
    return {
        name: CLASS_COLORS[number % len(CLASS_COLORS)] for number, name in enumerate(class_names)
    }


def _clock(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{int(seconds // 60)}:{seconds % 60:04.1f}"
