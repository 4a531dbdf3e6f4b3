"""A new kind of task is one file, its settings and one row; a new task of a kind is one row."""

import json

import pytest
from changed_package import command, copy_package, insert
from make_labels import write_frames25k

ROWS = """
KINDS["brightness"] = TaskKind(
    "the mean brightness of an image",
    network="network2d",
    unit="images",
    submission=False,
    pictures=False,
)
TASKS["brightness_scannet"] = TaskRecord("brightness", "scannet")
TASKS["semseg_again"] = TaskRecord("semseg", "scannet")
"""

SETTINGS = '''

class Brightness(Task2d):
    """Settings of a kind of task for a test."""
'''

FILE = '''
"""The mean brightness of an image, for a test."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import mse_loss

from pri3d.datasets import open_split
from pri3d.finetune.optimizers import polynomial_rate, sgd
from pri3d.finetune.samples import resolve_item, separate
from pri3d.finetune.subsets import labeled_subset
from pri3d.run.folder import RANDOM

ITEMS_AT_ONCE = 2


class Item(NamedTuple):
    position: int
    name: str
    notes: list
    color: torch.Tensor


class Batch(NamedTuple):
    names: list
    color_B3: torch.Tensor
    damaged: list
    notes: list


def open_data(dataset, root, split):
    return open_split(dataset, root, split)


def select(data, settings):
    return labeled_subset(data.frames, settings)


def problems(data):
    return data.problems


def content(data, position):
    return [data.color(position)]


def samples(data, chosen, settings):
    class Samples(torch.utils.data.Dataset):
        def __getitem__(self, item):
            position, _ = resolve_item(item, chosen, settings.seed)
            return read_item(data, position, settings)

    return Samples()


def collate(samples):
    good, damaged = separate(samples)
    return Batch([s.name for s in good], torch.stack([s.color for s in good]), damaged, [])


def networks(data, settings):
    return nn.ModuleDict({"backbone": nn.Linear(3, 1)})


def load_initial_weights(nets, settings):
    return RANDOM


def freeze_and_select(nets, settings):
    return list(nets.parameters())


def set_training_mode(nets, settings):
    nets.train()


def losses(nets, batch, settings):
    return {"brightness": mse_loss(nets["backbone"](batch.color_B3)[:, 0], batch.color_B3.mean(1))}


def weight(batch, settings):
    return float(len(batch.names))


def optimizer(parameters, settings):
    return sgd(parameters, settings)


def learning_rate(settings, step, steps):
    return polynomial_rate(settings, step, steps)


def measurable(data):
    return list(range(len(data.frames)))


def read_item(data, position, settings):
    color = torch.from_numpy(data.color(position).mean(axis=(0, 1)) / 255).float()
    return Item(position, data.frames[position].name, [], color)


def predict_items(nets, items, settings, device):
    with torch.no_grad():
        return nets["backbone"](torch.stack([item.color for item in items]))[:, 0].tolist()


def new_counts(data):
    return []


def count(counts, data, item, prediction):
    counts.append(abs(prediction - float(item.color.mean())))


def figures(counts, data):
    return {"error": sum(counts) / len(counts)}


def summary(result):
    return [f"mean error {result['error']:.3f}"]
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with a kind of task and two tasks more."""
    root = tmp_path_factory.mktemp("package")
    copy_package(root)
    (root / "pri3d/finetune/tasks/brightness.py").write_text(FILE)
    insert(root / "pri3d/config/tasks.py", "\n\ndef kind_of", ROWS)
    insert(root / "pri3d/config/finetune.py", "\n\nclass Insseg(", SETTINGS)
    settings = root / "pri3d/config/settings.py"
    insert(settings, "    semseg: Semseg = ", "    brightness: Brightness = Brightness()\n")
    insert(settings, "    Semseg,\n", "    Brightness,\n")
    return root


def test_a_kind_of_task_is_one_file_its_settings_and_one_row(package, tmp_path):
    data, run = write_frames25k(tmp_path / "frames"), tmp_path / "run"
    sets = [
        "--set=steps=200",
        "--set=batch=4",
        "--set=lr=0.2",
        "--set=workers=0",
        "--set=threads=1",
    ]
    command(package, "finetune", "brightness_scannet", "--data", data, "--out", run, *sets)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["brightness_loss"] < 0.1 * lines[0]["brightness_loss"]
    out = tmp_path / "brightness.json"
    text = command(package, "evaluate", run, "--data", data, "--out", out, "--threads", 1)
    result = json.loads(out.read_text())
    assert text == f"brightness_scannet mean error {result['error']:.3f}\n"
    assert result["error"] < 0.05
    assert result["images"] == result["images_of_split"] == 4
    assert result["run"]["task"] == "brightness_scannet"


def test_a_task_of_a_kind_is_one_row(package, tmp_path):
    data, run = write_frames25k(tmp_path / "frames"), tmp_path / "run"
    small = {"network2d": "resnet18_half", "height": 64, "width": 96, "batch": 2, "steps": 1}
    sets = [f"--set={key}={value}" for key, value in (small | {"workers": 0, "threads": 1}).items()]
    command(package, "finetune", "semseg_again", "--data", data, "--out", run, *sets)
    words = ["--data", data, "--out", tmp_path / "again.json", "--threads", 1, "--pictures", 0]
    assert "semseg_again by ScanNet's rule: mIoU" in command(package, "evaluate", run, *words)
