"""The page as a whole: its sections, its navigation, and that it is self-contained."""

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_results import Page, cameras, make_page, make_stages

from pri3d import report
from pri3d.errors import Pri3DError

NASTY = "a<b>&'c\"$x$"
# No script, link, iframe, object ...
HARMLESS = re.compile(
    "html|head|meta|title|style|body|header|h[123]|p|ul|li|b|nav|a|section|div|table|thead|tbody|"
    "tfoot|tr|th|td|span|wbr|dl|dt|dd|figure|figcaption|img|svg|image|line|circle|details|summary|"
    "code"
)


def test_sections_have_distinct_anchors_and_titles():
    ids = [section.ID for section in report.SECTIONS]
    assert len(set(ids)) == len({section.TITLE for section in report.SECTIONS}) == len(ids)
    assert all(re.fullmatch("[a-z]+", name) for name in ids)


def test_navigation_is_the_list_of_sections(page):
    nav = page[page.index("<nav") : page.index("</nav>")]
    links = re.findall(r'<a href="#(\w+)">([^<]*)</a>', nav)
    sections = re.findall(r'<section id="(\w+)">\s*<h2>([^<]*)</h2>', page)
    assert links == sections
    # The scans are not the demo's, so this section does not apply.
    expected = [(each.ID, each.TITLE) for each in report.SECTIONS if each.ID != "demo"]
    assert sections == expected


def test_headline_counts_and_warns(page):
    head = Page(page).text("header")
    assert "Pri3D report" in head
    assert "4 scans" in head
    assert "8 frames kept" in head
    assert "8 chunks" in head
    assert "1 pretraining run " in head
    assert "One frame in 2 is used" in head
    assert "points closer than 2 cm" in head
    assert "overlap of at least 0.3 are kept" in head
    assert "Missing or unreadable: 2 of 4 scans" in head
    assert "Partly damaged, or without a usable frame: 1 of 4 scans" in head


def test_page_is_self_contained(page):
    reader = Page(page)
    assert all(HARMLESS.fullmatch(tag) for tag, _ in reader.tags)
    pictures = 0
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert re.match(r"data:image/(png|jpeg|svg\+xml);base64,|#\w+$", value)
                pictures += value.startswith("data:")
                if value.startswith("data:image/svg"):
                    drawing = base64.b64decode(value.partition(",")[2]).decode()
                    assert not re.search(r'(href|src)\s*=\s*"(?!#)', drawing)
            assert not name.startswith("on")
    assert pictures >= 12
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 8_000_000


def test_names_are_escaped(page):
    assert "<b>&amp;" not in page
    assert "a&lt;b&gt;&amp;" in page
    assert NASTY in Page(page).sections["digests"]


def test_same_bytes_at_any_place_and_time(copy, page):
    assert make_page(copy) == page


def test_report_needs_no_torch(results, tmp_path):
    code = (
        "import sys, pathlib; from pri3d import report; "
        "report.run(*map(pathlib.Path, sys.argv[1:])); "
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'open3d', 'snakemake'})"
    )
    command = [sys.executable, "-c", code, results, tmp_path / "index.html"]
    root = Path(report.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


RUN_FILES = [f"runs/joint/{name}" for name in ("settings.json", "provenance.json")]
ABSENT = [
    (["pairs.h5"], {"ledger": "no pairs.h5", "pairs": "no pairs.h5"}),
    (["overlap"], {"overlap": "no files in overlap/"}),
    (["clouds"], {"pairs": "no files in clouds/", "chunk": "no files in chunks/ (with"}),
    (["chunks"], {"chunk": "no files in chunks/"}),
    (["runs"], {"training": "There are no pretraining runs"}),
    (["evaluation"], {"recall": "No pretraining run was evaluated"}),
    (["clouds"], {"recall": "does not have the images of the example"}),
    (["benchmarks"], {"costs": "no measurements in benchmarks/"}),
    (RUN_FILES, {"training": "Not finished: step 30 so far"}),
    ([*RUN_FILES, "runs/joint/metrics.jsonl"], {"training": "(just started, or empty): joint."}),
    (["runs/joint/metrics.jsonl"], {"training": "no metrics yet"}),
    (["runs/joint/model.safetensors"], {"training": "the weights are missing"}),
    (["overlap", "clouds", "chunks", "runs", "benchmarks"], {"ledger": "the counts add up"}),
    (["pairs.h5", "overlap", "clouds", "chunks", "benchmarks"], {"training": "Run joint"}),
]


@pytest.mark.parametrize(("gone", "text"), ABSENT, ids=[" ".join(gone) for gone, _ in ABSENT])
def test_absent_parts_are_replaced_by_a_sentence(copy, page, gone, text):
    for name in gone:
        (shutil.rmtree if (copy / name).is_dir() else Path.unlink)(copy / name)
    changed = Page(make_page(copy))
    assert set(changed.sections) == set(Page(page).sections)
    for name, sentence in text.items():
        assert sentence in changed.text(name)
        assert sentence not in Page(page).text(name) or sentence in KEPT


KEPT = ("the counts add up", "Run joint")  # in the whole page too


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(Pri3DError, match="holds nothing to report on"):
        report.run(tmp_path, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_a_damaged_artefact_is_named(copy):
    path = copy / "overlap/partly.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Pri3DError, match=r"overlap/partly\.h5"):
        make_page(copy)


@pytest.mark.parametrize("name", ["runs/joint/settings.json", "evaluation/joint.json"])
def test_a_damaged_run_or_evaluation_is_named(copy, name):
    (copy / name).write_text("{}")
    with pytest.raises(Pri3DError, match=name):
        make_page(copy)


def test_files_that_do_not_belong_together_are_reported(copy):
    make_stages(copy, "stranger", cameras=cameras(2))
    make_stages(copy, "partly", cameras=cameras(4))
    page = Page(make_page(copy))
    head = page.text("header")
    assert "pairs.h5 is older than the overlap of partly" in head
    assert "not shown: overlap/stranger.h5, clouds/stranger.h5, chunks/stranger.h5" in head
    assert "stranger" not in page.sections["digests"]
