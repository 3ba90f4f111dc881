"""The look that all figures share, and how one becomes part of a page that can be light or dark."""

import io
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1d232b", "#6b7480", "#dfe3e8", "#fefefe"
ACCENT = "#0072b2"
PAGE_COLORS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
}
"""What the page decides, by the colour that stands for it in a figure on white."""

# Okabe and Ito's colours, which the colour-blind can tell apart, without black and the pale yellow.
CLASS_COLORS = (
    "#0173b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#7f6ab0",
    "#8c8c8c",
)

HALF_WIDTH_INCHES, FULL_WIDTH_INCHES = 5.0, 10.2
MAX_LABEL_LENGTH = 28

# Any: how matplotlib types its settings differs from version to version.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    # A label may hold any character; a dollar sign is no formula.
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    # Text stays text, in the page's font; a fixed salt gives equal figures equal bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "tfn",
}
styled = matplotlib.rc_context(STYLE)
"""Decorator: what the function draws gets `STYLE`; the settings of others stay as they are."""


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure whose parts make room for one another."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def tidy(axes: Axes, *, grid: str) -> Axes:
    """No tick marks, ink on the tick labels, and grid lines along one direction or none."""
    axes.tick_params(length=0, labelcolor=INK, labelsize=8.5)
    axes.grid(False)
    if grid in ("x", "both"):
        axes.grid(True, axis="x")
    if grid in ("y", "both"):
        axes.grid(True, axis="y")
    return axes


def shorten(label: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """A label that fits on an axis; the middle is cut out, as names often differ at their ends."""
    if len(label) <= max_length:
        return label
    tail = max_length // 3
    return f"{label[: max_length - tail - 1]}…{label[-tail:]}"


def text_on(color: str, *, opacity: float) -> str:
    """The colour of text that can be read on a bar."""
    if opacity < 0.6:
        return INK
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    luminance = sum(w * c**2.2 for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
    return "#14181d" if luminance > 0.2 else "#ffffff"


@styled
def inline_svg(figure: Figure, *, prefix: str) -> str:
    """A figure as an ``<svg>`` element for the middle of a page.

    Args:
        figure: what to draw.
        prefix: goes before its ids, which must differ from those of the page's other figures.

    Returns:
        The element, without size, namespaces or metadata; equal figures give equal text.
    """
    sink = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(sink, format="svg", transparent=True, metadata=nothing)
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :]
    root, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', root)
    assert view is not None
    return f"<svg {view[0]}>" + re.sub(r"<[^>]+>", lambda tag: _fix(tag[0], prefix), rest)


def _fix(tag: str, prefix: str) -> str:
    """One tag with its ids made unique and its colours left to the page."""
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", tag)
    for color, variable in PAGE_COLORS.items():
        tag = tag.replace(color, variable)
    return tag
