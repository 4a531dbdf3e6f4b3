"""The report: its figures are those of the artefacts, and it stands on its own."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from small_scenes import ROOM, intrinsics, look, make_clouds

from pri3d import config, demo, report, store
from pri3d.classes import PALETTE40
from pri3d.demo import classes
from pri3d.errors import Pri3DError
from pri3d.pretrain import metrics
from pri3d.report import examples, overlaps
from pri3d.stages import chunks, overlap, pairs

NASTY = "a<b>&'c\"$x$"  # a file's name may hold all of these
SHAPE = (48, 64)
SECTIONS = {"ledger", "overlap", "pairs", "chunk", "rooms", "training", "recall", "costs"}
SECTIONS |= {"settings"}
# No script, link, iframe, object ...
HARMLESS = re.compile(
    "html|head|meta|title|style|body|header|h[123]|p|ul|li|b|nav|a|section|div|table|thead|tbody|"
    "tfoot|tr|th|td|span|wbr|dl|dt|dd|figure|figcaption|img|svg|image|line|circle|details|summary|"
    "code"
)


FLOOR, CEILING = (200, 60, 60), (60, 200, 60)
# The colour camera of one scan, far from the depth camera and turned.
COLOR_FROM_DEPTH = look((0.12, -0.08, 0.03), 0.1) @ np.linalg.inv(look((0, 0, 0), 0))


def cameras(count):
    return [look((1.2 + 0.08 * k, 1.1, 1.0), 0.3 * k - 0.3) for k in range(count)]


def make_stages(folder, scene, **given):
    """clouds, overlap and chunks of one small scan; its room's walls are the surface."""
    clouds = make_clouds(folder / f"clouds/{scene}.h5", scene=scene, shape=SHAPE, **given)
    overlap.run(clouds, folder / f"overlap/{scene}.h5", config.Overlap())
    surface = folder / "surface.ply"
    write_walls(surface)
    chunks.run(clouds, folder / f"chunks/{scene}.h5", config.Chunks(), surface)
    surface.unlink()


def write_walls(path):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (8000, 3)) * ROOM
    axis = rng.integers(0, 3, len(points))
    points[np.arange(len(points)), axis] = rng.integers(0, 2, len(points)) * ROOM[axis]
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    head += "".join(f"property float {name}\n" for name in "xyz")
    head += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    color = {0.0: FLOOR, ROOM[2]: CEILING}
    rows = [(*point, *color.get(point[2], (90, 120, 200))) for point in points]
    rows = [" ".join(map(str, row)) + "\n" for row in rows]
    path.write_text(head + "end_header\n" + "".join(rows))


def make_run(folder, pairs_digest, steps=30, mode="joint", **given):
    """A run's folder, with metrics written as training writes them."""
    folder.mkdir(parents=True)
    window, ever, text = Counter(), Counter(), ""
    for step in range(10, steps + 1, 10):
        terms = (("view", 5.0 - step / 20, step / 100), ("geo", 6.0, 0.002))
        if mode != "joint":
            terms = ((mode, 4.0, 0.25),)
        for term, loss, recall in terms:
            found = {"samples": 1, "loss": loss, "loss_chance": np.log(1024)}
            if mode not in ("global_kd", "gupta"):
                found |= {"recall": recall, "recall_chance": 1 / 1024, "candidates": 1024}
            window.update({f"{term}_{name}": 20 * value for name, value in found.items()})
        window.update(updates=10, loss=100.0, pairs=20, seconds=4.0, waited_s=1.0)
        ever.update({"pairs": 20, "seconds": 4.0, "skipped: geo: no voxel is near": 3})
        text += json.dumps(metrics.line(step, 100, 0.1, window, ever, torch.device("cpu"))) + "\n"
        window.clear()
    text = re.sub(r'"memory_mb": [0-9.]+', '"memory_mb": 1234.5', text)
    (folder / "metrics.jsonl").write_text(text)
    setting = {"mode": mode, **config.Pretrain(steps=steps, **given).model_dump()}
    (folder / "settings.json").write_text(json.dumps(setting))
    origin = {
        "pairs": {"digest": pairs_digest, "inputs": {}},
        "starts": {"teacher_weights": "random"},
    }
    (folder / "provenance.json").write_text(json.dumps(origin))
    (folder / "model.safetensors").write_bytes(b"weights")


def benchmark(path, seconds, memory):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    path.write_text(f"{head}{seconds}\t0:00:00\t{memory}\t9\t9\t9\t0\t0\t0\t0\n")


def make_evaluation(path, scene):
    """What `pri3d evaluate` writes: one match found within 3 cells before, two after."""
    figures = {"recall_1": 0.1, "recall_3": 0.25, "recall_5": 0.3, "top1": 0.5, "candidates": 200}
    result = {
        "model": store.file_digest(path.parents[1] / "runs/joint/model.safetensors"),
        "scenes": [scene],
        "pairs": 7,
        "skipped": {"view: fewer than 2 matches": 4},
        "before": {"pixels": figures | {"recall_1": 0.0123}},
        "after": {"pixels": figures | {"recall_1": 0.4567}},
        "chance": {"pixels": figures | {"recall_1": 0.0009}},
        "example": {
            "pair": f"{scene} frames 10 and 12",
            "input_shape": SHAPE,
            "anchor": [[3, 4], [5, 6], [20, 30]],
            "true": [[3, 5], [5, 7], [20, 31]],
            "before": [[3, 8], [0, 0], [0, 31]],
            "after": [[3, 5], [8, 7], [0, 31]],
            "recall_3": {"before": 0.31, "after": 0.62},
        },
    }
    path.parent.mkdir()
    path.write_text(json.dumps(result))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All there can be: four scans (good, damaged, unreadable, missing), a run, measurements."""
    folder = tmp_path_factory.mktemp("made") / "results"
    make_stages(folder, NASTY, cameras=cameras(5))
    with h5py.File(folder / f"clouds/{NASTY}.h5", "r+") as file:
        file.attrs["color_from_depth"] = COLOR_FROM_DEPTH
    make_stages(
        folder,
        "partly",
        cameras=cameras(3),
        status="partial: 1 of 4 frames are damaged",
        dropped=((1, b"cut"),),
    )
    make_stages(folder, "ruined", cameras=[], status="failed: no .sens file", dropped=())
    files = sorted((folder / "overlap").glob("*.h5"))
    pairs.run(files, folder / "pairs.h5", config.Pairs(), missing=["lost"])
    make_run(folder / "runs/joint", store.artefact_digest(folder / "pairs.h5"))
    make_evaluation(folder / "evaluation/joint.json", NASTY)
    for stage in ("clouds", "overlap", "chunks"):
        benchmark(folder / f"benchmarks/{stage}/{NASTY}.tsv", 1.25, "321.5")
        benchmark(folder / f"benchmarks/{stage}/partly.tsv", 0.5, "NA")
    benchmark(folder / "benchmarks/pairs.tsv", 0.75, "55.0")
    benchmark(folder / "benchmarks/report.tsv", 777, "777.0")
    return folder


@pytest.fixture
def copy(results, tmp_path):
    """A copy of the results to take something away from."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="module")
def page(results):
    return make_page(results)


def make_page(results):
    out = results / "report/index.html"
    report.run(results, out)
    text = out.read_text()
    shutil.rmtree(out.parent)
    return text


class Reader(HTMLParser):
    """Tags with their attributes, the rows of all tables, and the text of each section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.sections, self.open, self.lines = [], [], {}, [], []
        self.current = "header"
        self.feed(text.replace("\N{NO-BREAK SPACE}", " "))
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in ("meta", "img", "image", "line", "circle", "wbr"):
            self.open.append(tag)
        if tag == "section":
            self.current = attributes["id"]
        if tag == "tr":
            self.rows.append((attributes.get("class"), []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")
        if tag == "line":
            self.lines.append(attributes)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "style" in self.open:
            return
        text = self.sections.get(self.current, "")
        self.sections[self.current] = text + data
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][1][-1] += data

    def row(self, first):
        """The one row that begins with a cell, and the class that marks it."""
        (found,) = [(kind, cells) for kind, cells in self.rows if cells[0] == first][:1]
        return found


def words(text):
    return " ".join(text.split())


def test_ledger_has_the_figures_of_every_scan_and_they_add_up(results, page):
    reader = Reader(page)
    with h5py.File(results / f"overlap/{NASTY}.h5") as file:
        points, matches = file["points"][()].astype(float), file["matches"][()].astype(float)
    kept = sum(
        (matches[i, j] + matches[j, i]) / (points[i] + points[j]) >= 0.3
        for i in range(5)
        for j in range(i)
    )
    assert 0 < kept < 10
    head = next(cells for _, cells in reader.rows if cells[0] == "scan")
    assert head[:7] == [
        *("scan", "frames in the scan", "taken", "= kept"),
        *("+ cut", "+ no_depth", "+ pose_not_finite"),
    ]
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
    assert "11 taken = 8 kept + 1 cut + 1 no_depth + 1 pose_not_finite" in page
    assert "the books balance" in page
    assert f"{total[8]} pairs reach the threshold of 0.3" in words(reader.sections["overlap"])


def test_headline_counts_and_warns(page):
    head = words(Reader(page).sections["header"])
    assert "4 scans" in head
    assert "8 frames kept" in head
    assert "8 chunks of surface" in head
    assert "1 pretraining run" in head
    assert "One frame in 2 is taken" in head
    assert "points closer than 2 cm" in head
    assert "overlap of 0.3 on" in head
    assert "Missing or unreadable: 2 of 4 scans" in head
    assert "Damaged in part, or without a usable frame: 1 of 4 scans" in head


def test_page_stands_on_its_own(page):
    reader = Reader(page)
    assert set(reader.sections) >= SECTIONS
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
    assert NASTY in Reader(page).sections["digests"]


def test_same_bytes_wherever_and_whenever(copy, page):
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


ABSENT = [
    (["pairs.h5"], {"ledger": "no pairs.h5", "pairs": "no pairs.h5"}),
    (["overlap"], {"overlap": "no files in overlap/"}),
    (["clouds"], {"pairs": "no files in clouds/", "chunk": "no files in chunks/ (with"}),
    (["chunks"], {"chunk": "no files in chunks/"}),
    (["runs"], {"training": "There are no runs"}),
    (["evaluation"], {"recall": "Nothing was evaluated"}),
    (["clouds"], {"recall": "has no images of its example"}),
    (["benchmarks"], {"costs": "no measurements in benchmarks/"}),
    (
        ["runs/joint/settings.json", "runs/joint/model.safetensors", "runs/joint/provenance.json"],
        {"training": "Not finished: step 30 so far"},
    ),
    (["runs/joint/metrics.jsonl"], {"training": "no metrics yet"}),
    (["runs/joint/model.safetensors"], {"training": "weights are missing"}),
    (["overlap", "clouds", "chunks", "runs", "benchmarks"], {"ledger": "the books balance"}),
    (["pairs.h5", "overlap", "clouds", "chunks", "benchmarks"], {"training": "Run joint"}),
]


@pytest.mark.parametrize(("gone", "said"), ABSENT, ids=[" ".join(gone) for gone, _ in ABSENT])
def test_what_is_absent_is_left_out_with_a_sentence(copy, page, gone, said):
    for name in gone:
        (shutil.rmtree if (copy / name).is_dir() else Path.unlink)(copy / name)
    sections = Reader(make_page(copy)).sections
    assert set(sections) == set(Reader(page).sections)
    for name, sentence in said.items():
        assert sentence in words(sections[name])
    assert "There are no" not in words(Reader(page).sections["costs"])  # the sentence means it


def test_recall_in_unseen_scans_before_and_after(page):
    section = Reader(page).sections["recall"]
    said = words(section)
    assert "0.09 %" in said
    row = ["two images (cells)", "within 1", "1.23 %", "45.67 %", "0.09 %"]
    assert re.search(r"\s*".join(map(re.escape, row)), said)
    assert "first of 200" in said
    assert "Left out: 4 x view: fewer than 2 matches." in said
    assert "Before pretraining" in said
    assert "1 of 3 drawn, 31 % of all matches" in said
    assert "2 of 3 drawn, 62 % of all matches" in said
    assert "other weights" not in said


def test_an_evaluation_of_other_weights_is_told(copy):
    (copy / "runs/joint/model.safetensors").write_bytes(b"trained again")
    assert "are of other weights" in words(Reader(make_page(copy)).sections["recall"])


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(Pri3DError, match="holds nothing to report on"):
        report.run(tmp_path, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_a_damaged_artefact_is_named(copy):
    path = copy / "overlap/partly.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Pri3DError, match=r"overlap/partly\.h5"):
        make_page(copy)


def test_what_does_not_belong_together_is_told(copy):
    make_stages(copy, "stranger", cameras=cameras(2))
    make_stages(copy, "partly", cameras=cameras(4))
    origin = copy / "runs/joint/provenance.json"
    origin.write_text(json.dumps({"pairs": {"digest": "0" * 64, "inputs": {}}}))
    sections = Reader(make_page(copy)).sections
    head = words(sections["header"])
    assert "pairs.h5 is older than the overlap of partly" in head
    assert "not shown here: overlap/stranger.h5, clouds/stranger.h5, chunks/stranger.h5" in head
    assert "trained on other pairs" in sections["training"]
    assert "stranger" not in sections["digests"]


def test_drawn_pairs_end_at_the_same_place_of_the_wall(results, page):
    """Ends of the drawn lines, cast through the colour camera: the same point of the room."""
    drawn = Reader(page).lines
    page = page[page.index('id="pairs"') : page.index('id="chunk"')]  # their lines are the first
    captions = re.findall(r"frame (\d+) \(left\) and frame (\d+) \(right\)", page)
    scenes = re.findall(r"<figcaption>(\S+), frame \d+ \(left\)", page)
    assert len(captions) == 3
    assert set(scenes) == {"a&lt;b&gt;&amp;&#x27;c&quot;$x$"}
    height, width = (2 * n for n in SHAPE)
    K = intrinsics((height, width))
    pictures = [part.count("<line") // 2 for part in page.split("<svg")[1:]]
    assert len(pictures) == 3
    assert all(20 <= count <= 40 for count in pictures)

    def cast(x, y, pose):
        ray = pose[:3, :3] @ [(x - 0.5 - K[0, 2]) / K[0, 0], (y - 0.5 - K[1, 2]) / K[1, 1], 1]
        with np.errstate(divide="ignore"):
            distance = np.concatenate([-pose[:3, 3] / ray, (ROOM - pose[:3, 3]) / ray])
        return pose[:3, 3] + ray * distance[distance > 0].min()

    lines = iter(drawn[::2])  # each is drawn twice: its halo and itself
    for count, frames in zip(pictures, captions):
        poses = [cameras(5)[(int(f) - 10) // 2] @ np.linalg.inv(COLOR_FROM_DEPTH) for f in frames]
        for _ in range(count):
            ends = {name: float(value) for name, value in next(lines).items() if name[0] in "xy"}
            assert ends["x1"] <= width <= ends["x2"] - 12
            a = cast(ends["x1"], ends["y1"], poses[0])
            b = cast(ends["x2"] - width - 12, ends["y2"], poses[1])
            assert np.linalg.norm(a - b) < 0.02 + 0.003  # printed to a tenth of a pixel


def test_examples_are_low_middle_high_and_from_different_scans():
    rng = np.random.default_rng(0)
    frames = SimpleNamespace(
        scenes=["a", "b", "c", "without images"],
        frame_scene=rng.integers(0, 4, 300),
        a=np.arange(300),
        overlap=np.linspace(0.3, 1, 300),
    )
    made = SimpleNamespace(pairs=frames, clouds=dict.fromkeys("abc"))
    chosen = examples.choose(made)
    assert np.abs(frames.overlap[chosen] - [0.335, 0.65, 0.965]).max() < 0.06
    assert sorted(examples.scene_of(made, pair) for pair in chosen) == ["a", "b", "c"]


def test_a_surface_that_could_not_be_used_is_told(tmp_path):
    make_stages(tmp_path, "a", cameras=cameras(3))
    broken = tmp_path / "broken.ply"
    broken.write_bytes(b"ply")
    chunks.run(
        tmp_path / "clouds/a.h5",
        tmp_path / "chunks/a.h5",
        config.Chunks(),
        broken,
        keep_going=True,
    )
    report.run(tmp_path, tmp_path / "index.html")
    assert "a has no surface" in (tmp_path / "index.html").read_text()
    assert "failed: broken.ply: " in (tmp_path / "index.html").read_text()


def test_the_chunk_is_seen_from_above_without_the_ceiling(page):
    (data,) = re.findall(r'base64,([^"]+)" alt="A room from above', page)
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)

    def seen(color):
        """Pixels of a colour, or of its pale variant outside of the chunk."""
        pale = 0.72 * 255 + 0.28 * np.array(color)
        return sum((np.abs(pixels - each).max(axis=-1) < 5).sum() for each in (color, pale))

    assert seen(FLOOR) > 1000
    assert seen((90, 120, 200)) > 1000
    assert seen(CEILING) == 0


def test_matrices_by_both_rules(results, tmp_path):
    points, matches = np.array([10, 20, 0]), np.array([[0, 4, 0], [12, 0, 0], [0, 0, 0]])
    for rule, expected in (("paper", 16 / 30), ("official", 0.6)):
        path = tmp_path / f"{rule}.h5"
        with store.publish(path, "pri3d-overlap", {"rule": rule}, {}) as writer:
            writer.attribute("scene", "x")
            writer.dataset("frames/index", np.array([0, 25, 50], np.uint32))
            writer.dataset("points", points.astype(np.uint32))
            writer.dataset("matches", matches.astype(np.uint32))
        shares, index = overlaps.matrix(path)
        assert index.tolist() == [0, 25, 50]
        assert shares[0, 1] == shares[1, 0] == expected
        assert np.count_nonzero(shares) == 2


def test_histogram_says_how_many_pairs_share_nothing(copy):
    away = [look((1.5, 1.2, 1.0), yaw) for yaw in (0.0, 0.05, np.pi)]
    make_stages(copy, "partly", cameras=away)
    text = words(Reader(make_page(copy)).sections["overlap"])
    with h5py.File(copy / f"overlap/{NASTY}.h5") as file:
        none = np.count_nonzero(np.triu(file["matches"][()] == 0, 1))
    assert f"the 13 tested pairs overlap; {none + 2} of them share no point" in text


def test_at_most_twelve_matrices_and_the_others_by_name(tmp_path):
    clouds = make_clouds(tmp_path / "clouds.h5", cameras(2), (12, 16), dropped=())
    files = []
    for number in range(15):
        scene = f"room{number:02d}"
        with h5py.File(clouds) as file, h5py.File(tmp_path / "one.h5", "w") as one:
            for name in file:
                file.copy(name, one)
            one.attrs.update({**file.attrs, "scene": scene})
        files.append(tmp_path / f"results/overlap/{scene}.h5")
        overlap.run(tmp_path / "one.h5", files[-1], config.Overlap())
    pairs.run(files, tmp_path / "results/pairs.h5", config.Pairs(min_overlap=0, max_pairs=4))
    page = make_page(tmp_path / "results")
    assert page.count('alt="Overlap matrix of') == 12
    text = words(Reader(page).sections["overlap"])
    (others,) = re.findall(r"3 more are not drawn: (room\d\d), (room\d\d), (room\d\d)\.", text)
    for scene in others:
        assert f'alt="Overlap matrix of {scene}"' not in page
    assert "4 of these were drawn at random" in page
    assert "pairs drawn" in page


def test_training_shows_recall_beside_loss_and_what_was_skipped(copy):
    with open(copy / "runs/joint/metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')  # a line that a kill cut
    reader = Reader(make_page(copy))
    view = reader.row("view (image to image)")[1]
    assert view == [
        "view (image to image)",
        *("30", "3.500", "6.931", "30.00 %", "0.10 %", "307.2 times"),
    ]
    assert reader.row("geo: no voxel is near")[1][1] == "9"
    text = words(reader.sections["training"])
    assert "60 pairs" in text
    assert "1,234 MB" in text or "1,235 MB" in text
    assert "30 of 30 steps" in text


def test_training_of_a_3d_network_is_shown_too(copy):
    make_run(copy / "runs/ppkt", "", mode="ppkt", teacher="timm:convnext_atto", batch=7)
    make_run(copy / "runs/gupta", "", mode="gupta", batch=3)
    page = make_page(copy)
    reader = Reader(page)
    row = ["ppkt (points to pixels)", "30", "4.000", "6.931", "25.00 %", "0.10 %", "256.0 times"]
    assert reader.row(row[0])[1] == row
    assert reader.row("gupta (whole frames)")[1][1:4] == ["30", "4.000", "6.931"]
    text = words(reader.sections["training"])
    assert "ppkt: clouds in voxels of 2.5 cm; teacher timm:convnext_atto (random) on 320" in text
    assert "frames a step: 7, with up to 1,024 matches each" in text
    assert "frames a step: 3; 30 of 30 steps" in text
    assert page.count('alt="Match recall over steps"') == 2  # of joint and of ppkt
    assert page.count('alt="Loss over steps"') == 3


def test_long_runs_are_thinned_without_bias(copy):
    shutil.rmtree(copy / "runs/joint")
    make_run(copy / "runs/joint", "0" * 64, steps=7000)
    page = make_page(copy)
    assert "700 lines of metrics.jsonl" in page
    drawn = [base64.b64decode(data) for data in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert max(map(len, drawn)) < 150_000


def test_costs_are_summed_by_stage(page):
    reader = Reader(page)
    assert reader.row("clouds")[1][:6] == ["clouds", "2", "1.75", "0.88", "1.25", "322"]
    assert reader.row("pairs")[1][:3] == ["pairs", "1", "0.75"]
    assert reader.row("all")[1][:3] == ["all", "7", "6.00"]
    assert "777" not in reader.sections["costs"]  # what the last report took is not of this one
    each = [cells for _, cells in reader.rows if cells[0] == "partly" and cells[1] == "0.50"]
    assert each == [["partly", "0.50", "–", "0.50", "–", "0.50", "–"]]


def test_settings_and_digests_are_those_of_the_artefacts(results, page):
    reader = Reader(page)
    assert reader.row("pairs.min_overlap")[1][1] == "0.3"
    assert reader.row("overlap.radius_m")[1] == [
        *("overlap.radius_m", "0.02"),
        config.Overlap.model_fields["radius_m"].description,
    ]
    assert reader.row("pretrain.lr")[1][1] == "0.1"
    for path in [results / "pairs.h5", *results.glob("[oc]*/*.h5")]:
        name = path.relative_to(results).as_posix()
        assert reader.row(name)[1][2] == store.artefact_digest(path)
    weights = "runs/joint/model.safetensors"
    assert reader.row(weights)[1][2] == store.file_digest(results / weights)


def test_demo_frames_stand_beside_their_labels(tmp_path):
    made = demo.make(
        tmp_path / "demo", config.Demo(scans=1, frames=3, height=24, color_height=24, noise=False)
    )
    make_stages(tmp_path, made[0].stem, cameras=cameras(2))
    page = make_page(tmp_path)
    assert f'alt="Frames of {made[0].stem} with labels"' in page
    with zipfile.ZipFile(made[0].with_name(f"{made[0].stem}_2d-label-filt.zip")) as archive:
        images = [Image.open(archive.open(name)) for name in archive.namelist()]
        raw = np.unique([np.array(image) for image in images])
    seen = {name: entry for name, entry in classes.CLASSES.items() if entry.raw in raw}
    assert {"wall", "floor"} < set(seen) < set(classes.CLASSES)
    swatches = re.findall(r'background:rgb\((\d+),(\d+),(\d+)\)"></span>([^<]*)<', page)
    legend = {tuple(map(int, color)): names for *color, names in swatches}
    assert set(legend) == {tuple(PALETTE40[entry.nyu40].tolist()) for entry in seen.values()}
    assert all(
        name in legend[tuple(PALETTE40[entry.nyu40].tolist())] for name, entry in seen.items()
    )
