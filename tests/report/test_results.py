"""The report's part on finetuned networks: tables, the curve, the paper's figures, pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from pri3d import config, store
from pri3d.classes import SCANNET18, SCANNET20
from pri3d.report import results
from pri3d.report.gather import gather


def semseg(miou, scenes=1, network2d="resnet50"):
    figures = {"mean_iou": miou, "pixel_accuracy": 0.6, "mean_accuracy": 0.5}
    iou = dict.fromkeys(SCANNET20.names) | {"wall": miou, "sofa": miou / 2}
    return {
        "task": "semseg_scannet",
        "images": 25,
        "scenes": scenes,
        "images_of_split": 26,
        "left_out": ["one/label/000000.png: missing; the frame is left out"],
        "settings": config.Semseg(network2d=network2d).model_dump(),
        "rules": {"scannet": figures | {"iou": iou}, "pri3d": figures | {"iou": iou}},
    }


def insseg(ap50, score=0.5):
    figures = {"ap": ap50 / 2, "ap50": ap50, "ap75": None, "classes": {"chair": ap50 / 2}}
    return {
        "task": "insseg_scannet",
        "images": 25,
        "objects": 77,
        "scenes": 312,
        "images_of_split": 25,
        "left_out": [],
        "settings": config.Insseg(network2d="resnet50", score=score).model_dump(),
        "coco": {"boxes": figures, "masks": figures},
        "scannet": {"ap": 0.1, "ap50": 0.2, "classes": dict.fromkeys(SCANNET18.names)},
    }


@pytest.fixture
def made(tmp_path):
    """write(name, result) puts a run and its evaluation there; section() draws them."""

    def write(name, result):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "model.safetensors").write_bytes(name.encode())
        settings = {"task": result["task"], **result["settings"]}
        (run / "settings.json").write_text(json.dumps(settings))
        result = result | {"model": store.file_digest(run / "model.safetensors")}
        path = tmp_path / "evaluation" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result))
        return path

    def section():
        return str(results.tasks(gather(tmp_path)))

    return write, section


def test_runs_of_a_start_are_a_row_with_their_standard_error(made):
    write, section = made
    for seed, miou in enumerate((0.2, 0.3, 0.25)):
        write(f"semseg_scannet-joint-20-{seed}", semseg(miou))
    write("semseg_scannet-scratch-20-0", semseg(0.123))
    page = section()
    error = np.std([20, 30, 25], ddof=1) / np.sqrt(3)
    assert f"25.00 ± {error:.2f}" in page
    assert ">12.30<" in page
    assert "mIoU over scratch" in page
    assert ">+7.70<" in page  # of the seed that both have
    assert page.index(">scratch<") < page.index(">joint<")
    assert "25 images of the validation split; left out: 1." in page
    assert "paper" not in page.split("</thead>")[0]  # not the paper's data set
    assert ">sofa<" in page
    assert ">toilet<" not in page  # no run has a figure for it


def test_the_papers_figures_stand_beside_its_data_set_only(made):
    write, section = made
    write("semseg_scannet-joint-20-0", semseg(0.5, scenes=312))
    write("semseg_scannet-view-60-0", semseg(0.5, scenes=312))
    write("semseg_scannet-imagenet-80-0", semseg(0.5, scenes=312, network2d="resnet18"))
    write("semseg_scannet-geo-7-0", semseg(0.5, scenes=312))
    write("insseg_scannet-joint-100-0", insseg(0.3))
    page = section()
    for figure in (">52.1<", ">58.4<", ">49.8<", ">mask 35.8, box 44.5<"):
        assert figure in page
    assert "77 objects. Detections under a score of 0.5 were dropped" in page


@pytest.mark.parametrize(
    "change",
    [
        {"images": 10},
        {"settings": {"net": "deeplabv3"}},
        {"settings": {"frozen": True}},
        {"settings": {"subset": "random"}},
        {"scenes": 311},
    ],
)
def test_the_papers_figures_do_not_stand_beside_another_protocol(made, change):
    write, section = made
    result = semseg(0.5, scenes=312)
    settings = result["settings"] | change.get("settings", {})
    write("semseg_scannet-joint-20-0", result | change | {"settings": settings})
    write("insseg_scannet-joint-100-0", insseg(0.3, score=0.05))
    assert ">paper<" not in section()


def test_the_papers_figures_of_nyu_and_of_pretraining_from_scratch(made, tmp_path):
    write, section = made
    nyu = {"task": "semseg_nyuv2", "scenes": 464, "images": 654, "images_of_split": 654}
    write("semseg_nyuv2-joint-100-0", semseg(0.5) | nyu | {"left_out": []})
    write("semseg_scannet-joint-20-0", semseg(0.5, scenes=312))
    page = section()
    assert ">54.7<" in page
    assert ">52.1<" in page
    (tmp_path / "runs" / "joint").mkdir()
    origin = tmp_path / "runs" / "joint" / "provenance.json"
    origin.write_text(json.dumps({"starts": {"initial_weights_2d": "random"}}))
    page = section()
    assert ">40.4<" in page
    assert ">52.1<" not in page


def test_several_shares_are_a_curve(made):
    write, section = made
    write("semseg_scannet-joint-20-0", semseg(0.2))
    assert "over the share of the labels" not in section()
    write("semseg_scannet-joint-100-0", semseg(0.4))
    assert "over the share of the labels" in section()


def test_pictures_are_those_of_the_best_run(made):
    write, section = made
    for name, miou in (("worse", 0.1), ("better", 0.2)):
        path = write(f"semseg_scannet-{name}-100-0", semseg(miou))
        folder = path.with_name(f"{path.stem}_pictures")
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / f"of_the_{name}.jpg")
    assert "of_the_better" in section()
    assert "of_the_worse" not in section()


def test_figures_of_other_weights_are_told(made, tmp_path):
    write, section = made
    write("semseg_scannet-joint-20-0", semseg(0.2))
    assert "Of other weights" not in section()
    (tmp_path / "runs/semseg_scannet-joint-20-0/model.safetensors").write_bytes(b"other")
    assert "Of other weights than those that are there now: semseg_scannet-joint-20-0" in section()


def test_names_that_the_workflow_did_not_give(made):
    write, section = made
    write("mine", semseg(0.2))
    assert ">mine<" in section()


def test_nothing_finetuned_is_said(tmp_path):
    (tmp_path / "runs" / "joint").mkdir(parents=True)
    assert "Nothing was finetuned" in str(results.tasks(gather(tmp_path)))


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


def det3d(ap, clouds=1):
    figures = {"mean": ap, "recall": 0.9, "classes": {"chair": ap}}
    return {
        "task": "det3d_scannet",
        "clouds": clouds,
        "clouds_of_split": clouds,
        "objects": 1234,
        "left_out": [],
        "settings": config.Det3d().model_dump(),
        "boxes": {"ap25": figures, "ap50": figures | {"mean": ap / 2}},
    }


def test_tasks_on_clouds_have_their_own_figures(made):
    write, section = made
    write("semseg3d_scannet-global_kd-15-0", semseg3d(0.42))
    write("det3d_scannet-ppkt-100-0", det3d(0.31))
    page = section()
    assert ">global_kd<" in page
    assert ">42.00<" in page
    assert ">21.00<" in page
    assert ">31.00<" in page
    assert ">15.50<" in page
    assert "1 clouds of the validation split" in page
    assert "1,234 objects" in page
    assert "59.67" not in page


def test_figures_of_ppkt_stand_beside_its_whole_splits_only(made):
    write, section = made
    write("semseg3d_scannet-ppkt-100-0", semseg3d(0.42, clouds=312))
    write("semseg3d_s3dis-pointcontrast-100-0", semseg3d(0.42, "semseg3d_s3dis", 68, 0.05))
    write("semseg3d_s3dis-ppkt-50-0", semseg3d(0.43, "semseg3d_s3dis", 68, 0.05))
    write("semseg3d_s3dis-scratch-100-0", semseg3d(0.43, "semseg3d_s3dis", 68, 0.02))
    write("det3d_scannet-ppkt-100-0", det3d(0.31, 312))
    write("semseg3d_scannet-ppkt-15-0", semseg3d(0.32, clouds=312))
    page = section()
    for figure in ("69.56", "66.86, mean accuracy 73.97", "59.67 / 38.90", "scratch + 2.23"):
        assert figure in page
    assert "68.28" not in page  # not of that share
    assert "65.16" not in page  # not in those voxels


def test_figures_of_ppkt_stand_beside_what_learned_from_imagenet_only(made, tmp_path):
    write, section = made
    write("semseg3d_scannet-ppkt-100-0", semseg3d(0.42, clouds=312))
    origin = tmp_path / "runs" / "ppkt" / "provenance.json"
    origin.parent.mkdir()
    for start, shown in (("random", False), ("ImageNet (torchvision IMAGENET1K_V1)", True)):
        origin.write_text(json.dumps({"starts": {"teacher_weights": start}}))
        assert ("69.56" in section()) == shown


def test_figures_of_sun_rgbd_tell_the_version_of_its_boxes(made):
    write, section = made
    result = det3d(0.31, 5050) | {"task": "det3d_sunrgbd", "described_by": "SUNRGBDMeta.mat"}
    result["settings"] |= {"points": 20000}
    write("det3d_sunrgbd-scratch-100-0", result)
    assert ">55.21<" in section()
    assert "objects of SUNRGBDMeta.mat" in section()
    other = result | {"described_by": "SUNRGBDMeta3DBB_v2.mat"}
    write("det3d_sunrgbd-pointcontrast-100-0", other)
    assert ">56.14<" not in section()
