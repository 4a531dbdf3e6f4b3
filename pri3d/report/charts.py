"""How figures look: small, quiet, the same bytes for the same numbers.

Colours are those of Okabe and Ito, which people with any colour vision tell apart.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8a959c"

_STYLE = {
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


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for one figure, whatever the user's own are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches, independent of pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(_SVG_METADATA))
    return buffer.getvalue()


def png(figure: Any, dpi: int = 150) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def lines(
    title: str,
    steps: np.ndarray,
    drawn: list[tuple[str, np.ndarray, str, str]],
    percent: bool = False,
) -> bytes:
    """A chart over training steps as SVG. drawn: (label, values, colour, line style)."""
    with style():
        figure = new_figure(4.6, 2.7)
        axes = figure.add_subplot()
        for label, values, color, dashes in drawn:
            marker = "o" if len(steps) < 3 else None
            axes.plot(steps, values, dashes, color=color, label=label, lw=1.5, marker=marker, ms=3)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.02, y=0.08)
        axes.grid(axis="y", color="#e6eaed", lw=0.7)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        if percent:
            axes.yaxis.set_major_formatter(_percent)
        if len(drawn) > 1:
            axes.legend(fontsize=8, loc="best")
        return svg(figure)


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.3g} %"
