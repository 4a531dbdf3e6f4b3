"""The ledger: its figures are those of the artefacts, and they add up."""

import h5py
import pytest
from small_results import Page

from pri3d.report.ledger import parse_status

NASTY = "a<b>&'c\"$x$"


def test_ledger_has_the_figures_of_every_scan_and_they_add_up(results, page):
    reader = Page(page)
    with h5py.File(results / f"overlap/{NASTY}.h5") as file:
        points, matches = file["points"][()].astype(float), file["matches"][()].astype(float)
    kept = sum(
        (matches[i, j] + matches[j, i]) / (points[i] + points[j]) >= 0.3
        for i in range(5)
        for j in range(i)
    )
    assert 0 < kept < 10
    head = reader.row("scan", "frames in the scan")[1]
    assert head[2:7] == ["used", "= kept", "+ cut", "+ no_depth", "+ pose_not_finite"]
    good = reader.row(NASTY)
    assert good == (None, [NASTY, "100", "7", "5", "0", "1", "1", "10", str(kept), "ok"])
    kind, cells = reader.row("partly")
    assert (kind, cells[:8]) == ("fair", ["partly", "100", "4", "3", "1", "0", "0", "3"])
    assert cells[-1] == "partial: 1 of 4 frames are damaged"
    assert reader.row("ruined")[0] == reader.row("lost")[0] == "bad"
    assert reader.row("ruined")[1][-1] == "failed: no .sens file"
    assert reader.row("lost")[1][-1] == "missing"
    total = reader.row("all 4")[1]
    assert total[1:7] == ["300", "11", "8", "1", "1", "1"]  # two scans of 100, and the ruined one
    assert "11 used = 8 kept + 1 cut + 1 no_depth + 1 pose_not_finite" in page
    assert "the counts add up" in page
    assert f"{total[8]} pairs reach the threshold of 0.3" in reader.text("overlap")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("ok", "ok"),
        ("partial: 1 of 4 frames are damaged", "partial"),
        ("failed: no .sens file", "failed"),
        ("missing", "failed"),
    ],
)
def test_status_of_a_scan(text, status):
    assert parse_status(text) == status
