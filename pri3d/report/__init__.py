"""The report: one self-contained HTML page about everything in a results folder.

A part without its artefacts is replaced by a sentence that says how to make them. Equal files give
an equal page: it does not depend on the time, the machine or the location of the folder.

Sections, in the order of the page (`SECTIONS`), one module each:

    ledger        frames kept and dropped, by scan
    overlap       overlap matrices, and the histogram of overlap
    pairs         three pairs with their correspondences
    chunk_map     one chunk in bird's-eye view
    demo_scans    frames of demo scans beside their labels
    pretraining   loss, match recall and pace of all runs
    recall        matches found in held-out scans
    finetuning    results of finetuned networks
    costs         time and memory
    settings      settings of all artefacts and runs
    digests       digests of all artefacts and weights

Shared by them:

    gather        lists the content of the results folder
    evaluations   reads the evaluations of runs
    metrics       series of the metrics of runs
    variants      pretraining runs by variant
    paper         figures of the papers, and their protocols
    means         means over seeds
    names         order and colors of runs
    overview      the head of the page
    image_pairs   two images with lines between corresponding pixels
    charts, html  style of figures; tables and the page
"""

from pathlib import Path
from typing import Protocol

from pri3d.report import (
    chunk_map,
    costs,
    demo_scans,
    digests,
    finetuning,
    html,
    ledger,
    overlap,
    overview,
    pairs,
    pretraining,
    recall,
    settings,
)
from pri3d.report.gather import Results, gather
from pri3d.report.html import Html
from pri3d.store import atomic_path


class Section(Protocol):
    """A module that makes a section. ID: its anchor. TITLE: of the section and its link."""

    ID: str
    TITLE: str

    def render(self, results: Results) -> Html | None:
        """The content of the section; None if it does not apply to the results."""


SECTIONS: tuple[Section, ...] = (
    ledger,
    overlap,
    pairs,
    chunk_map,
    demo_scans,
    pretraining,
    recall,
    finetuning,
    costs,
    settings,
    digests,
)


def run(results: Path, out: Path) -> None:
    """Write the page `out` about the artefacts, runs and benchmarks in the folder `results`.

    Raises:
        Pri3DError: there is nothing to report on, or a file is damaged.
    """
    gathered = gather(results)
    rendered = [(section, section.render(gathered)) for section in SECTIONS]
    shown = [(section, content) for section, content in rendered if content is not None]
    head = overview.render(gathered, {section.ID: section.TITLE for section, _ in shown})
    body = [html.section(section.ID, section.TITLE, content) for section, content in shown]
    with atomic_path(out) as temporary:
        temporary.write_text(html.page("Pri3D report", [head, *body]), encoding="utf-8")
