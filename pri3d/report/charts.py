"""The style of figures. The same numbers give the same bytes.

The named colors are those of Okabe and Ito, which are distinct for any color vision.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pri3d.report.html import Html, image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GRAY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8a959c"
BLACK, INK, RULE = "#000000", "#1c2328", "#e6eaed"

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a959c",
    "axes.labelcolor": "#39434a",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": "#56626b",
    "ytick.color": "#56626b",
    "legend.frameon": False,
    "svg.hashsalt": "pri3d",
    "svg.fonttype": "path",
}

_SVG_METADATA = ("Date", "Creator", "Format", "Type")


class Curve(NamedTuple):
    """One line of a chart. steps, values, spread: [n]; spread: half the height of a band."""

    label: str
    steps: np.ndarray
    values: np.ndarray
    color: str
    dashed: bool = False
    spread: np.ndarray | None = None


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The settings of matplotlib for one figure, independent of the user's own."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> "Figure":
    """A figure (sizes in inches) that is independent of pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: "Figure") -> bytes:
    """The figure as an SVG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(_SVG_METADATA))
    return buffer.getvalue()


def png(figure: "Figure", dpi: int = 150) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def horizontal_rules(axes: "Axes") -> None:
    """Thin lines behind the data at the ticks of the vertical axis."""
    axes.grid(axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)


def integer_ticks(axis: "Axis") -> None:
    """Ticks at integers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def lines(title: str, curves: list[Curve], percent: bool = False) -> Html:
    """A chart over training steps. percent: values are shares."""
    with style():
        figure = new_figure(4.6, 2.7)
        axes = figure.add_subplot()
        for curve in curves:
            axes.plot(
                curve.steps,
                curve.values,
                "--" if curve.dashed else "-",
                color=curve.color,
                label=curve.label,
                lw=1.5,
                marker="o" if len(curve.steps) < 3 else None,
                ms=3,
            )
            if curve.spread is not None:
                low, high = curve.values - curve.spread, curve.values + curve.spread
                axes.fill_between(curve.steps, low, high, color=curve.color, alpha=0.18, lw=0)
        axes.set_title(title)
        axes.set_xlabel("step")
        integer_ticks(axes.xaxis)
        axes.margins(x=0.02, y=0.08)
        horizontal_rules(axes)
        axes.set_ylim(bottom=0)
        if percent:
            axes.yaxis.set_major_formatter(_percent)
        if len(curves) > 1:
            axes.legend(fontsize=8, loc="best")
        return image(svg(figure), "svg+xml", f"{title} over steps")


def _percent(value: float, _: float) -> str:
    return f"{100 * value:.3g} %"
