"""The order and the colors of runs, variants and initial weights."""

import zlib
from collections.abc import Iterable

from pri3d.config import MODES
from pri3d.report import charts
from pri3d.report.evaluations import finetuned
from pri3d.report.gather import Results
from pri3d.run.folder import RANDOM, InitialWeights

# Colors of the modes, in the order of MODES.
_MODE_COLORS = (
    charts.BLUE,
    charts.RED,
    charts.GREEN,
    charts.ORANGE,
    "#56b4e9",
    "#cc79a7",
    "#9a7fb8",
    "#c0a060",
    "#7a6a5a",
)
_FIXED = {RANDOM.name: charts.GRAY, "imagenet": charts.BLACK, **dict(zip(MODES, _MODE_COLORS))}
# Colors of variants and of files of weights.
_OTHERS = (
    "#b8336a",
    "#2a9d8f",
    "#6a4c93",
    "#bc6c25",
    "#3d5a80",
    "#7f9c1e",
    "#e5738a",
    "#1b7f9e",
    "#9b2226",
    "#5b8e7d",
    "#8d6e97",
    "#c77d0a",
)

_KINDS = ("random", "imagenet", "run", "file")

SortKey = tuple[int, int, bool, str]


def colors(names: Iterable[str]) -> dict[str, str]:
    """A color for each name of runs, variants or initial weights.

    Scratch, ImageNet and the modes have fixed colors. Any other name prefers the same color in
    every report, and takes the next one if two names prefer the same.
    """
    chosen: dict[str, str] = {}
    for name in sorted(set(names)):
        if name in _FIXED:
            chosen[name] = _FIXED[name]
            continue
        first = zlib.crc32(name.encode())
        candidates = [_OTHERS[(first + k) % len(_OTHERS)] for k in range(len(_OTHERS))]
        free = [color for color in candidates if color not in chosen.values()]
        chosen[name] = (free or candidates)[0]
    return chosen


def names_in(results: Results) -> list[str]:
    """The names of all variants and initial weights in the results.

    With these, `colors` gives a name the same color in all charts of a report.
    """
    variants = [run.variant or run.name for run in results.runs]
    return [*variants, *(evaluation.weights.name for evaluation in finetuned(results))]


def run_sort_key(variant: str, mode: str | None) -> tuple[int, bool, str]:
    """Sorts pretraining runs: by mode, in the order of MODES; the mode itself before variants."""
    modes = list(MODES)
    return (modes.index(mode) if mode in MODES else len(modes), variant != mode, variant)


def weights_sort_key(weights: InitialWeights) -> SortKey:
    """Sorts initial weights: scratch, ImageNet, pretraining runs, files."""
    return (_KINDS.index(weights.kind), *run_sort_key(weights.name, weights.mode))
