"""Results of finetuned networks: tables, curves, figures of the papers, pictures."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from small_results import write_run

from pri3d import config, store
from pri3d.classes import SCANNET18, SCANNET20
from pri3d.config import KINDS, MODES, TASKS
from pri3d.config.tasks import DATASET_TITLES
from pri3d.errors import Pri3DError
from pri3d.report import evaluations, finetuning
from pri3d.report.gather import gather
from pri3d.report.means import mean_over_pretrainings
from pri3d.report.paper import PROTOCOLS
from pri3d.run.folder import RANDOM, InitialWeights, Provenance

IMAGENET = InitialWeights("imagenet", "imagenet", "ImageNet (torchvision IMAGENET1K_V1)")


def semseg(miou, scenes=1, network2d="resnet50", task="semseg_scannet", **settings):
    figures = {"mean_iou": miou, "pixel_accuracy": 0.6, "mean_accuracy": 0.5}
    iou = dict.fromkeys(SCANNET20.names) | {"wall": miou, "sofa": miou / 2}
    return {
        "task": task,
        "images": 25,
        "scenes": scenes,
        "images_of_split": 26,
        "left_out": ["one/label/000000.png: missing; the frame is left out"],
        "settings": config.Semseg(network2d=network2d, **settings).model_dump(),
        "rules": {"scannet": figures | {"iou": iou}, "pri3d": figures | {"iou": iou}},
    }


def insseg(ap50, min_score=0.5):
    figures = {"ap": ap50 / 2, "ap50": ap50, "ap75": None, "classes": {"chair": ap50 / 2}}
    return {
        "task": "insseg_scannet",
        "images": 25,
        "objects": 77,
        "scenes": 312,
        "images_of_split": 25,
        "left_out": [],
        "settings": config.Insseg(network2d="resnet50", min_score=min_score).model_dump(),
        "coco": {"boxes": figures, "masks": figures},
        "scannet": {"ap": 0.1, "ap50": 0.2, "classes": dict.fromkeys(SCANNET18.names)},
    }


def semseg3d(miou, task="semseg3d_scannet", clouds=1, voxel_m=0.02):
    figures = {"mean_iou": miou, "pixel_accuracy": 0.6, "mean_accuracy": 0.5}
    figures |= {"iou": {"wall": miou, "sofa": None}}
    return {
        "task": task,
        "clouds": clouds,
        "clouds_of_split": clouds,
        "left_out": [],
        "settings": config.Semseg3d(voxel_m=voxel_m).model_dump(),
        "rules": {"points": figures, "voxels": figures | {"mean_iou": miou / 2}},
    }


def det3d(ap, clouds=1, task="det3d_scannet", **settings):
    figures = {"mean": ap, "recall": 0.9, "classes": {"chair": ap}}
    return {
        "task": task,
        "clouds": clouds,
        "clouds_of_split": clouds,
        "objects": 1234,
        "left_out": [],
        "settings": config.Det3d(**settings).model_dump(),
        "boxes": {"ap25": figures, "ap50": figures | {"mean": ap / 2}},
    }


def provenance(**initial_weights):
    return Provenance(
        inputs={},
        initial_weights=initial_weights,
        code="0" * 64,
        versions={},
        engine=None,
    )


class Folder:
    """A results folder that fills."""

    def __init__(self, path):
        self.path = path

    def finetuned(self, result, weights, percent=100, seed=0, variant=None, pretraining_seed=0):
        """A finetuned run and its evaluation. weights: scratch, imagenet, or the name of a mode."""
        origin = {"scratch": RANDOM, "imagenet": IMAGENET}.get(weights)
        if origin is None:
            name = variant or weights
            mode = weights if weights in MODES else None
            origin = InitialWeights("run", name, "", mode=mode, seed=pretraining_seed)
        name = f"{result['task']}-{origin.name}-{pretraining_seed}-{percent}-{seed}"
        run = self.path / "runs" / name
        section = type(getattr(config.Settings(), TASKS[result["task"]].kind))
        settings = section.model_validate(result["settings"])
        write_run(run, "finetune", result["task"], settings, provenance(network=origin))
        (run / "model.safetensors").write_bytes(name.encode())
        header = {
            "name": name,
            "task": result["task"],
            "percent": percent,
            "seed": seed,
            "initial_weights": origin._asdict(),
        }
        content = {k: v for k, v in result.items() if k != "task"} | {"run": header}
        return self._evaluation(name, content)

    def of_version_0_1(self, name, result, settings, start):
        """A finetuned run and its evaluation, as version 0.1 wrote them."""
        run = self.path / "runs" / name
        run.mkdir(parents=True)
        (run / "model.safetensors").write_bytes(name.encode())
        (run / "settings.json").write_text(json.dumps({"task": result["task"], **settings}))
        record = {
            "made_from": {
                "task": result["task"],
                "settings": settings,
                "start": None,
                "frames": "0",
                "code": "0",
            },
            "start": start,
            "versions": {},
        }
        (run / "provenance.json").write_text(json.dumps(record))
        return self._evaluation(name, result | {"settings": settings, "start": start})

    def _evaluation(self, name, content):
        weights = self.path / "runs" / name / "model.safetensors"
        path = self.path / "evaluation" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content | {"model": store.file_digest(weights)}))
        return path

    def pretrained(self, mode, **initial_weights):
        """A pretraining run without weights."""
        settings = config.Pretrain()
        write_run(
            self.path / "runs" / mode, "pretrain", mode, settings, provenance(**initial_weights)
        )

    def section(self):
        return str(finetuning.render(gather(self.path)))

    def rows(self):
        """The cells of all rows."""
        rows = re.findall("<tr>(.*?)</tr>", self.section())
        return [re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_every_kind_of_task_has_measures_and_every_task_a_protocol():
    assert set(evaluations.MEASURES) == set(KINDS)
    assert set(PROTOCOLS) == set(TASKS)
    assert set(DATASET_TITLES) == {task.dataset for task in TASKS.values()}


def test_runs_with_the_same_initial_weights_are_a_row_with_their_standard_error(folder):
    for seed, miou in enumerate((0.2, 0.3, 0.25)):
        folder.finetuned(semseg(miou), "joint", 20, seed)
    folder.finetuned(semseg(0.123), "scratch", 20)
    page = folder.section()
    error = np.std([20, 30, 25], ddof=1) / np.sqrt(3)
    assert f"25.00 ± {error:.2f}" in page
    assert ">12.30<" in page
    assert "mIoU over scratch" in page
    assert ">+7.70<" in page  # for the seed that both have
    assert page.index(">scratch<") < page.index(">joint<")
    assert "25 images of the validation split; left out: 1." in page
    assert "Semantic segmentation of images, ScanNet" in page
    assert "paper" not in page.split("</thead>")[0]  # not the paper's data set
    assert ">sofa<" in page
    assert ">toilet<" not in page  # no run has a figure for it


def test_a_variant_is_a_row_with_the_spread_over_its_pretraining_seeds(folder):
    for pretraining_seed, miou in enumerate((0.2, 0.3)):
        for seed in range(2):
            result = semseg(miou + 0.02 * seed)
            folder.finetuned(
                result, "view", 20, seed, variant="small", pretraining_seed=pretraining_seed
            )
    folder.finetuned(semseg(0.4), "view", 20)
    head, view, small, *_ = folder.rows()
    assert head[:4] == ["initial weights", "labels", "runs", "pretraining seeds"]
    assert view[:5] == ["view", "20 %", "1", "–", "40.00"]
    error = np.std([21, 31], ddof=1) / np.sqrt(2)
    assert small[:5] == ["small", "20 %", "4", "2", f"26.00 ± {error:.2f}"]


def test_error_is_over_pretraining_runs_if_there_are_several():
    values = [("a", 1.0), ("a", 3.0), ("b", 4.0), ("b", None), ("c", None)]
    mean = mean_over_pretrainings(values)
    assert mean.value == 3
    assert mean.error == pytest.approx(np.std([2, 4], ddof=1) / np.sqrt(2))
    assert mean_over_pretrainings(values[:2]).error == pytest.approx(1.0)
    assert mean_over_pretrainings(values[:1]).error is None
    assert mean_over_pretrainings(values[-1:]) is None


def test_figures_of_the_paper_stand_beside_its_data_set_only(folder):
    folder.finetuned(semseg(0.5, scenes=312), "joint", 20)
    folder.finetuned(semseg(0.5, scenes=312), "view", 60)
    folder.finetuned(semseg(0.5, scenes=312, network2d="resnet18"), "imagenet", 80)
    folder.finetuned(semseg(0.5, scenes=312), "geo", 7)
    folder.finetuned(insseg(0.3), "joint", 100)
    page = folder.section()
    for figure in (">52.1<", ">58.4<", ">49.8<", ">mask 35.8, box 44.5<"):
        assert figure in page
    assert "with 77 objects" in page
    assert "Predictions with a score below 0.5 were dropped" in page


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"images": 10}, {}),
        ({}, {"architecture": "deeplabv3"}),
        ({}, {"frozen": True}),
        ({}, {"subset": "random"}),
        ({"scenes": 311}, {}),
    ],
)
def test_figures_of_the_paper_do_not_stand_beside_another_protocol(folder, change, settings):
    folder.finetuned(semseg(0.5, scenes=312, **settings) | change, "joint", 20)
    folder.finetuned(insseg(0.3, min_score=0.05), "joint", 100)
    assert ">paper<" not in folder.section()


def test_figures_of_the_paper_do_not_stand_beside_variants_of_its_methods(folder):
    folder.finetuned(semseg(0.5, scenes=312), "joint", 20, variant="small")
    assert ">paper<" not in folder.section()


def test_figures_of_the_paper_for_nyu_and_for_pretraining_from_scratch(folder):
    nyu = {"scenes": 464, "images": 654, "images_of_split": 654, "left_out": []}
    folder.finetuned(semseg(0.5, task="semseg_nyuv2") | nyu, "joint")
    folder.finetuned(semseg(0.5, scenes=312), "joint", 20)
    page = folder.section()
    assert ">54.7<" in page
    assert ">52.1<" in page
    folder.pretrained("joint", backbone=IMAGENET)
    assert ">52.1<" in folder.section()
    folder.pretrained("joint", backbone=RANDOM)
    page = folder.section()
    assert ">40.4<" in page
    assert ">52.1<" not in page
    assert ">54.7<" not in page


def test_figures_of_ppkt_stand_beside_its_whole_splits_only(folder):
    folder.finetuned(semseg3d(0.42, clouds=312), "ppkt")
    folder.finetuned(semseg3d(0.42, "semseg3d_s3dis", 68, 0.05), "pointcontrast")
    folder.finetuned(semseg3d(0.43, "semseg3d_s3dis", 68, 0.05), "ppkt", 50)
    folder.finetuned(semseg3d(0.43, "semseg3d_s3dis", 68, 0.02), "scratch")
    folder.finetuned(det3d(0.31, 312), "ppkt")
    folder.finetuned(semseg3d(0.32, clouds=312), "ppkt", 15)
    page = folder.section()
    for figure in ("69.56", "66.86, mean accuracy 73.97", "59.67 / 38.90", "scratch + 2.23"):
        assert figure in page
    assert "68.28" not in page  # not with this share of the labels
    assert "65.16" not in page  # not with these voxels


def test_figures_of_ppkt_stand_beside_teachers_with_imagenet_weights_only(folder):
    folder.finetuned(semseg3d(0.42, clouds=312), "ppkt")
    for teacher, shown in ((RANDOM, False), (IMAGENET, True)):
        folder.pretrained("ppkt", teacher=teacher, backbone3d=RANDOM)
        assert ("69.56" in folder.section()) == shown


def test_figures_of_sun_rgbd_depend_on_the_version_of_its_boxes(folder):
    result = det3d(0.31, 5050, "det3d_sunrgbd", max_points=20000)
    folder.finetuned(result | {"described_by": "SUNRGBDMeta.mat"}, "scratch")
    page = folder.section()
    assert ">55.21<" in page
    assert "1,234 objects from SUNRGBDMeta.mat" in page
    folder.finetuned(result | {"described_by": "SUNRGBDMeta3DBB_v2.mat"}, "pointcontrast")
    assert ">56.14<" not in folder.section()


def test_tasks_on_clouds_have_their_own_figures(folder):
    folder.finetuned(semseg3d(0.42), "global_kd", 15)
    folder.finetuned(det3d(0.31), "ppkt")
    page = folder.section()
    assert ">global_kd<" in page
    for figure in (">42.00<", ">21.00<", ">31.00<", ">15.50<"):
        assert figure in page
    assert "1 cloud of the validation split" in page
    assert "1,234 objects" in page
    assert "59.67" not in page


def test_several_shares_of_the_labels_are_a_curve(folder):
    folder.finetuned(semseg(0.2), "joint", 20)
    assert "over the share of the labels" not in folder.section()
    folder.finetuned(semseg(0.4), "joint", 100)
    assert "over the share of the labels" in folder.section()


def test_pictures_are_those_of_the_best_run(folder):
    for weights, miou in (("view", 0.1), ("joint", 0.2)):
        path = folder.finetuned(semseg(miou), weights)
        pictures = path.with_name(f"{path.stem}_pictures")
        pictures.mkdir()
        Image.new("RGB", (8, 8)).save(pictures / f"of_{weights}.jpg")
    assert "of_joint" in folder.section()
    assert "of_view" not in folder.section()


def test_an_evaluation_of_other_weights_is_reported(folder, tmp_path):
    path = folder.finetuned(semseg(0.2), "joint", 20)
    assert "have changed" not in folder.section()
    (tmp_path / "runs" / path.stem / "model.safetensors").write_bytes(b"other")
    assert f"have changed since their evaluation: {path.stem}" in folder.section()


def test_different_score_thresholds_are_reported(folder):
    folder.finetuned(insseg(0.3, min_score=0.5), "joint")
    folder.finetuned(insseg(0.3, min_score=0.05), "view")
    assert "thresholds from 0.05 to 0.5" in folder.section()


def test_an_evaluation_without_a_figure_is_named(folder):
    result = semseg(0.2)
    del result["rules"]["pri3d"]["mean_iou"]
    path = folder.finetuned(result, "joint")
    with pytest.raises(Pri3DError, match=f"{path.name}: has no rules.pri3d.mean_iou"):
        folder.section()


def test_no_finetuned_run(tmp_path):
    (tmp_path / "runs" / "joint").mkdir(parents=True)
    assert "No finetuned run was evaluated" in str(finetuning.render(gather(tmp_path)))


def test_runs_of_version_0_1_are_read_with_their_old_settings(folder):
    old = {"net2d": "resnet50", "net": "unet", "percent": 20.0, "subset": "published", "seed": 3}
    result = semseg(0.5, scenes=312)
    joint = {"init": "results/runs/joint", **old}
    loaded = "model.safetensors (Pri3D), SHA-256 0: 120 of 120 encoder entries loaded"
    folder.of_version_0_1("semseg_scannet-joint-20-0", result, joint, loaded)
    scratch = semseg(0.4, scenes=312)
    folder.of_version_0_1("mine", scratch, {"init": "random", **old}, "random")
    head, first, second, *_ = folder.rows()
    assert head[-2:] == ["mIoU over scratch", "paper"]
    assert [first[0], first[1], first[-1]] == ["scratch", "20 %", "19.4"]
    assert [second[0], second[1]] == ["joint", "20 %"]
    assert second[-2:] == ["+10.00", "52.1"]
