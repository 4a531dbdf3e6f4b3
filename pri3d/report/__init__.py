"""Everything that was made, and what was left out and why, as one self-contained page.

The page is made from what lies under `results/`; what is not there is left out with a sentence
that says so. The same files give the same bytes: nothing depends on the time, the machine or the
folder. One module a part of the page, in the page's order:

    gather      which files there are
    ledger      the headline and the ledger of every scan
    overlaps    overlap matrices and the histogram
    examples    three pairs with their correspondences
    above       one chunk, seen from above
    rooms       demo frames beside their labels
    curves      loss, recall and pace of every run
    recall      matches found in scans that were held out
    tasks       what finetuned networks reach, from each start
    costs       time, memory, settings and digests

    html        tables, figures and the page around them
    charts      how matplotlib's figures look
"""

from pathlib import Path

from pri3d.report import chunk_map, costs, curves, examples, html, ledger, overlaps, recall, rooms
from pri3d.report import results as finetuned
from pri3d.report.gather import gather
from pri3d.store import atomic_path


def run(results: Path, out: Path) -> None:
    """Write the page `out` from the artefacts, runs and benchmarks under the folder `results`.

    Raises Pri3DError when there is nothing to report on, or an artefact is damaged.
    """
    made = gather(results)
    sections = [
        ledger.headline(made),
        html.section("ledger", "Ledger: every frame is accounted for", ledger.ledger(made)),
        html.section("overlap", "Overlap of frames", overlaps.overlaps(made)),
        html.section("pairs", "Example pairs", examples.examples(made)),
        html.section("chunk", "A chunk seen from above", chunk_map.above(made)),
        html.section("rooms", "Demo scans and their labels", rooms.rooms(made)),
        html.section("training", "Pretraining", curves.training(made)),
        html.section("recall", "Matches in unseen scans", recall.recall(made)),
        html.section("tasks", "Finetuned on labels", finetuned.tasks(made)),
        html.section("costs", "Time and memory", costs.costs(made)),
        html.section("settings", "Settings", costs.settings(made)),
        html.section("digests", "Digests", costs.digests(made)),
    ]
    with atomic_path(out) as temporary:
        temporary.write_text(html.page("Pri3D: what was made", sections), encoding="utf-8")
