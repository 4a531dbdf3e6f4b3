"""A small results folder, written as the stages and trainers write it, and a reader of its page."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
from small_scenes import ROOM, look, make_clouds

from pri3d import config, report, store
from pri3d.run.folder import RANDOM, Provenance, write_provenance, write_settings
from pri3d.stages import chunks, overlap

SHAPE = (48, 64)
FLOOR, CEILING, WALL = (200, 60, 60), (60, 200, 60), (90, 120, 200)
# Modes whose loss has no candidates, and so no recall.
WITHOUT_RECALL = ("global_kd", "gupta")


def cameras(count):
    return [look((1.2 + 0.08 * k, 1.1, 1.0), 0.3 * k - 0.3) for k in range(count)]


def make_stages(folder, scene, **given):
    """clouds, overlap and chunks of one small scan; the walls of its room are the surface."""
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
    rows = [(*point, *color.get(point[2], WALL)) for point in points]
    rows = [" ".join(map(str, row)) + "\n" for row in rows]
    path.write_text(head + "end_header\n" + "".join(rows))


def metrics_line(step, terms):
    """A line of metrics.jsonl; terms: name -> (loss, recall)."""
    line = {"step": step, "loss": 10.0, "grad_norm": 1.0}
    for term, (loss, recall) in terms.items():
        line |= {f"{term}_loss": loss, f"{term}_loss_chance": np.log(1024)}
        if term not in WITHOUT_RECALL:
            line |= {f"{term}_recall": recall, f"{term}_recall_chance": 1 / 1024}
    return line | {
        "lr": 0.1,
        "pairs": 2 * step,
        "skipped": {"geo: no voxel is near": 3 * step // 10},
        "pairs_per_s": 5.0,
        "data_wait_share": 0.25,
        "memory_mb": 1234.5,
        "elapsed_s": 0.4 * step,
        "left_s": 1.0,
    }


def write_run(folder, kind, name, settings, provenance, variant=None):
    """Both records of a finished run."""
    write_settings(folder, kind, name, settings, variant)
    write_provenance(folder, provenance)


def make_run(folder, pairs_digest, steps=30, mode="joint", variant=None, recall=0.0, **given):
    """A pretraining run; its recall of the term view ends at `recall` + steps / 100."""
    folder.mkdir(parents=True)
    text = ""
    for step in range(10, steps + 1, 10):
        terms = {mode: (4.0, 0.25)}
        if mode in ("joint", "view"):
            terms = {"view": (5.0 - step / 20, recall + step / 100)}
        if mode == "joint":
            terms["geo"] = (6.0, 0.002)
        text += json.dumps(metrics_line(step, terms)) + "\n"
    (folder / "metrics.jsonl").write_text(text)
    mode_record = config.MODES[mode]
    networks = ["teacher"] if mode_record.teacher else []
    networks += ["backbone"] if "network2d" in mode_record.trains else []
    provenance = Provenance(
        inputs={"pairs": {"pairs": {"digest": pairs_digest, "inputs": {}}}},
        initial_weights=given.pop("initial_weights", dict.fromkeys(networks, RANDOM)),
        code="0" * 64,
        versions={"pri3d": "0.2.0", "torch": "2"},
        engine=None,
    )
    settings = config.Pretrain(steps=steps, **given)
    write_run(folder, "pretrain", mode, settings, provenance, variant)
    (folder / "model.safetensors").write_bytes(f"weights of {folder.name}".encode())


def benchmark(path, seconds, memory):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    path.write_text(f"{head}{seconds}\t0:00:00\t{memory}\t9\t9\t9\t0\t0\t0\t0\n")


def make_evaluation(path, scene, run=None, after=0.4567):
    """The evaluation of a pretraining run. run: its header; None: as version 0.1 wrote it."""
    figures = {"recall_1": 0.1, "recall_3": 0.25, "recall_5": 0.3, "top1": 0.5, "candidates": 200}
    example = {
        "input_shape": SHAPE,
        "anchor": [[3, 4], [5, 6], [20, 30]],
        "true": [[3, 5], [5, 7], [20, 31]],
        "before": [[3, 8], [0, 0], [0, 31]],
        "after": [[3, 5], [8, 7], [0, 31]],
        "recall_3": {"before": 0.31, "after": 0.62},
    }
    if run is None:
        example["pair"] = f"{scene} frames 10 and 12"
    else:
        example |= {"scene": scene, "frames": [10, 12]}
    weights = path.parents[1] / "runs" / path.stem / "model.safetensors"
    result = {
        **({"mode": "joint"} if run is None else {"run": run}),
        "model": store.file_digest(weights),
        "scenes": [scene],
        "pairs": 7,
        "skipped": {"view: fewer than 2 matches": 4},
        "before": {"pixels": figures | {"recall_1": 0.0123}},
        "after": {"pixels": figures | {"recall_1": after}},
        "chance": {"pixels": figures | {"recall_1": 0.0009}},
        "example": example,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result))


def make_page(results):
    """The page of a results folder."""
    out = results / "report/index.html"
    report.run(results, out)
    text = out.read_text()
    shutil.rmtree(out.parent)
    return text


class Page(HTMLParser):
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
        self.sections[self.current] = self.sections.get(self.current, "") + data
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][1][-1] += data

    def row(self, *first):
        """The class and the cells of the first row that begins with these cells."""
        return next(row for row in self.rows if tuple(row[1][: len(first)]) == first)

    def text(self, section):
        """The text of a section, with single spaces."""
        return re.sub(r"\s+", " ", self.sections[section])
