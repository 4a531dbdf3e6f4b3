"""Finetuning through the command line: starts, resuming, evaluation, predictions."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from make_labels import COLOR_SHAPE, write_frames25k
from PIL import Image
from safetensors.torch import load_file, save_file
from small_results import write_run
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn
from typer.testing import CliRunner

from pri3d import config
from pri3d.classes import SCANNET18, SCANNET20
from pri3d.cli import app
from pri3d.datasets import open_split
from pri3d.errors import Pri3DError
from pri3d.finetune import evaluate, mask_rcnn, probe, train
from pri3d.finetune.evaluate import Options
from pri3d.finetune.tasks import insseg, semseg
from pri3d.models.resunet import encode, resnet_encoder, resunet
from pri3d.run import checkpoint
from pri3d.run.folder import RANDOM, Provenance, read_run

# Its fixtures are whole runs: one process makes them.
pytestmark = pytest.mark.xdist_group("finetune")

DETECTOR_PARAMETERS = 44_067_009  # of torchvision's R50-FPN with 18 classes and the background
SMALL = {"network2d": "resnet18_half", "height": 64, "width": 96, "batch": 2, "workers": 0}
SMALL |= {"threads": 1, "device": "cpu", "log_every": 2}
TINY = {"network2d": "resnet18_half", "batch": 1, "workers": 0, "threads": 1, "device": "cpu"}
TINY |= {"short_sides": [64], "long_side": 96, "min_pixels": 50, "roi_samples": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_frames25k(tmp_path_factory.mktemp("data") / "frames")


def finetune(task, data, out, **settings):
    words = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    return CliRunner().invoke(
        app, ["finetune", task, "--data", str(data), "--out", str(out), *words]
    )


def _lines(out):
    return (out / "metrics.jsonl").read_text().splitlines()


def done(task, data, out, **settings):
    result = finetune(task, data, out, **settings)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A network that learned its colourful squares, and its figures before and after."""
    out = tmp_path_factory.mktemp("runs") / "squares"
    last = done(
        "semseg_scannet", data, out, **SMALL, steps=60, lr=0.1, crop=1.0, augment_color=False
    )
    return out, last


def test_a_network_learns_what_can_be_learned(trained, data, tmp_path):
    """Of 3 seeds, the worst last loss was 0.19 (the first 2.7), the worst accuracy 0.94."""
    out, last = trained
    lines = [json.loads(line) for line in _lines(out)]
    assert [line["step"] for line in lines] == list(range(2, 61, 2))
    assert lines[0]["loss"] > 2
    assert last["loss"] < 1
    assert last["images"] == 120
    result = evaluate.run(out, data, tmp_path / "squares.json", Options(pictures=2), "cpu", 1)
    figures = result["rules"]["scannet"]
    assert figures["pixel_accuracy"] > 0.7
    assert result["images"] == 4
    assert result == json.loads((tmp_path / "squares.json").read_text()) | {
        "rules": result["rules"]
    }
    pictures = sorted(path.name for path in (tmp_path / "squares_pictures").iterdir())
    assert pictures == ["scene0003_00_000000.jpg", "scene0003_00_000300.jpg"]
    unknown = {name for name, iou in figures["iou"].items() if np.isnan(iou)}
    assert unknown.isdisjoint({"wall", "floor", "chair", "table", "otherfurniture"})


def test_evaluation_is_the_networks_own_prediction(trained, data, tmp_path):
    """Predicted pictures put through the rule by hand give the figure, with the benchmark's ids."""
    out, _ = trained
    folder = tmp_path / "submission"
    result = evaluate.run(
        out, data, tmp_path / "x.json", Options(pictures=0, submission=folder), "cpu", 1
    )
    val = open_split("scannet", data, "val")
    right = wrong = 0
    for frame in val.frames:
        predicted = np.array(Image.open(folder / f"{frame.name.replace('/', '_')}.png"))
        assert predicted.shape == (480, 640)
        assert set(np.unique(predicted)) <= set(val.classes.ids)
        path = data / frame.scene / "label" / f"{frame.name[-6:]}.png"
        truth = np.array(Image.open(path).resize((640, 480), Image.Resampling.NEAREST))
        known = np.isin(truth, val.classes.ids)
        right += (predicted == truth)[known].sum()
        wrong += (predicted != truth)[known].sum()
    figures = result["rules"]["scannet"]
    assert figures["pixel_accuracy"] == pytest.approx(right / (right + wrong))
    every = np.nanmean([share for share in figures["iou"].values()])
    assert figures["mean_iou"] == pytest.approx(every)


def test_predictions_of_any_picture(trained, data, tmp_path):
    out, _ = trained
    picture = tmp_path / "photo.png"
    Image.fromarray(open_split("scannet", data, "val").color(0)).resize((301, 203)).save(picture)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(picture, again / "photo.png")
    words = ["predict", str(out), str(tmp_path / "broken.jpg"), str(picture)]
    words += [str(again / "photo.png"), "--out", str(tmp_path / "p"), "--device", "cpu"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, Pri3DError)
    assert "broken.jpg: is no picture" in str(result.exception)
    assert result.stdout.count("%") >= 2
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert names == [
        "photo_2_labels.png",
        "photo_2_predicted.jpg",
        "photo_labels.png",
        "photo_predicted.jpg",
    ]
    labels = np.array(Image.open(tmp_path / "p" / "photo_labels.png"))
    assert labels.shape == (203, 301)
    assert set(np.unique(labels)) <= {0, *SCANNET20.ids}


@pytest.mark.parametrize(("task", "given"), [("semseg_scannet", SMALL), ("insseg_scannet", TINY)])
def test_a_run_that_was_stopped_ends_with_the_same_bits(task, given, data, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    done(task, data, whole, **given, steps=4, checkpoint_every=1)
    stopped = tmp_path / "stopped"

    class Killed(Exception):
        pass

    step = train.step

    def killed_at_3(nets, optimizer, batches, number, *rest, **options):
        if number == 3:
            raise Killed
        return step(nets, optimizer, batches, number, *rest, **options)

    monkeypatch.setattr(train, "step", killed_at_3)
    assert isinstance(
        finetune(task, data, stopped, **given, steps=4, checkpoint_every=1).exception, Killed
    )
    monkeypatch.setattr(train, "step", step)
    assert not (stopped / "model.safetensors").exists()
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step_00000002.pt"]
    done(task, data, stopped, **given, steps=4, checkpoint_every=2)
    ours, theirs = (load_file(run / "model.safetensors") for run in (whole, stopped))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    steps = [json.loads(line)["step"] for line in _lines(stopped)]
    assert steps == sorted(set(steps))


def test_another_run_in_the_folder_is_not_overwritten(trained, data, caplog):
    out, _ = trained
    before = (out / "model.safetensors").read_bytes()
    same = SMALL | {"steps": 60, "lr": 0.1, "crop": 1.0, "augment_color": False}
    again = finetune("semseg_scannet", data, out, **same | {"lr": 0.2})
    assert "finished run that differs in semseg.lr (was 0.1, now 0.2)" in str(again.exception)
    with caplog.at_level(logging.INFO):
        result = finetune("semseg_scannet", data, out, **same | {"workers": 1, "epochs": 3})
    assert result.exit_code == 0  # these settings do not change the result
    assert "is finished already" in caplog.text
    assert (out / "model.safetensors").read_bytes() == before


def test_a_run_is_made_anew_after_its_labels_or_its_code_changed(data, tmp_path, monkeypatch):
    """As in the workflow, which removes the weights first; names and sizes stay the same."""
    root, out = tmp_path / "frames", tmp_path / "run"
    shutil.copytree(data, root)
    done("semseg_scannet", root, out, **SMALL, steps=6)
    first = load_file(out / "model.safetensors")
    folder = root / "scene0000_00" / "label"
    one, two = sorted(folder.iterdir())[:2]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert "differs in the content of dataset" in str(
        finetune("semseg_scannet", root, out, **SMALL, steps=6).exception
    )
    (out / "model.safetensors").unlink()
    done("semseg_scannet", root, out, **SMALL, steps=6)
    second = load_file(out / "model.safetensors")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    monkeypatch.setattr(train, "code_of_task", lambda kind: "other code")
    assert "differs in the code" in str(
        finetune("semseg_scannet", root, out, **SMALL, steps=6).exception
    )
    (out / "model.safetensors").unlink()
    done("semseg_scannet", root, out, **SMALL, steps=6)
    assert json.loads((out / "provenance.json").read_text())["code"] == "other code"


def test_weights_of_something_else_are_not_overwritten(data, tmp_path):
    out = tmp_path / "joint"
    out.mkdir()
    weights_file(out / "model.safetensors", resunet("resnet18_half"))
    result = finetune("semseg_scannet", data, out, **SMALL, steps=1)
    assert "holds weights that no finished run of this software wrote" in str(result.exception)


def test_a_given_name_names_the_weights_of_a_run_too(data, tmp_path):
    provenance = Provenance({"clouds": {}}, {"backbone": RANDOM}, "code", {}, None)
    write_run(tmp_path / "joint", "pretrain", "joint", config.Pretrain(), provenance, "deep")
    weights_file(tmp_path / "joint/model.safetensors", resunet("resnet18_half"))
    settings = config.Semseg(**SMALL, steps=1, initial_weights=str(tmp_path / "joint"))
    for given, name in ((None, "deep"), ("mine", "mine")):
        out = tmp_path / name
        train.run("semseg_scannet", data, out, settings, weights_name=given)
        weights = read_run(out).provenance.finetuned_from
        assert (weights.kind, weights.name, weights.mode) == ("run", name, "joint")


def test_a_disk_that_went_away_ends_the_run(data, tmp_path, monkeypatch):
    root = tmp_path / "frames"
    shutil.copytree(data, root)
    for path in root.glob("*/color/*.jpg"):
        path.write_bytes(b"")
    result = finetune("semseg_scannet", root, tmp_path / "run", **SMALL, steps=50)
    assert "no sample of the last 5 steps can be read" in str(result.exception)


def test_worker_processes_do_not_change_the_run(data, tmp_path):
    for workers in (0, 2):
        given = SMALL | {"workers": workers}
        done("semseg_scannet", data, tmp_path / str(workers), **given, steps=2)
    ours, theirs = (load_file(tmp_path / str(n) / "model.safetensors") for n in (0, 2))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def weights_file(path, module, prefix="backbone."):
    save_file({prefix + name: value for name, value in module.state_dict().items()}, path)
    return path


def test_initial_weights_are_in_the_network(tmp_path, caplog):
    torch.manual_seed(1)
    source = resunet("resnet18_half")
    file = weights_file(tmp_path / "unet.safetensors", source)
    for transfer, same in (("encoder_decoder", True), ("encoder", False)):
        settings = config.Semseg(
            network2d="resnet18_half", initial_weights=str(file), transfer=transfer
        )
        nets = semseg.build(20, settings)
        with caplog.at_level(logging.INFO):
            start = semseg.load_initial_weights(nets, settings)
        assert start.kind == "file"
        assert start.loaded == ("backbone.encoder", "backbone.decoder")[: 1 + same]
        for name, value in source.encoder.state_dict().items():
            assert torch.equal(nets["backbone"].encoder.state_dict()[name], value)
        one = nets["backbone"].decoder.conv0.weight, source.decoder.conv0.weight
        assert torch.equal(*one) == same
    assert "decoder" in caplog.text


def test_starts_that_do_not_fit_are_refused(tmp_path):
    source = resunet("resnet18_half")
    state = {"backbone." + name: value for name, value in source.state_dict().items()}
    lacking = {k: v for k, v in state.items() if "encoder.layer3.1.conv2" not in k}
    save_file(lacking, tmp_path / "lacking.safetensors")
    for module, settings in (
        (
            semseg,
            config.Semseg(
                network2d="resnet18_half", initial_weights=str(tmp_path / "lacking.safetensors")
            ),
        ),
        (
            insseg,
            config.Insseg(
                network2d="resnet18_half", initial_weights=str(tmp_path / "lacking.safetensors")
            ),
        ),
    ):
        with pytest.raises(Pri3DError, match=r"lacks 1 entries of .*layer3\.1\.conv2\.weight"):
            module.load_initial_weights(module.build(20, settings), settings)
    half = {k: v for k, v in state.items() if "decoder.up4" not in k}
    save_file(half, tmp_path / "half.safetensors")
    settings = config.Semseg(
        network2d="resnet18_half", initial_weights=str(tmp_path / "half.safetensors")
    )
    with pytest.raises(Pri3DError, match=r"lacks \d+ entries of .*decoder\.up4"):
        semseg.load_initial_weights(semseg.build(20, settings), settings)
    other = config.Semseg(network2d="resnet18", initial_weights=str(tmp_path / "half.safetensors"))
    with pytest.raises(
        Pri3DError, match="holds a resnet18_half, and the network here is a resnet18"
    ):
        semseg.load_initial_weights(semseg.build(20, other), other)


def test_an_encoder_alone_starts_a_unet_and_says_so(tmp_path, caplog):
    file = weights_file(
        tmp_path / "e.safetensors", resnet_encoder("resnet18_half"), "backbone.encoder."
    )
    settings = config.Semseg(network2d="resnet18_half", initial_weights=str(file))
    with caplog.at_level(logging.INFO):
        semseg.load_initial_weights(semseg.build(20, settings), settings)
    assert "not in the file: decoder" in caplog.text


def test_a_run_that_is_no_start_is_refused(data, tmp_path):
    result = finetune(
        "semseg_scannet", data, tmp_path / "x", **SMALL, steps=1, initial_weights=str(tmp_path)
    )
    assert "no such file" in str(result.exception)


def test_the_detector_is_torchvisions(tmp_path):
    """Parameters, names and sizes of torchvision's own R50-FPN, with our encoder inside."""
    settings = config.Insseg(network2d="resnet50")
    model = insseg.build(18, settings)["model"]
    assert sum(parameter.numel() for parameter in model.parameters()) == DETECTOR_PARAMETERS
    reference = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=19)
    ours, theirs = model.state_dict(), reference.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    model.load_state_dict(theirs)
    model.eval()
    reference.eval()
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    for each in (model, reference):
        each.transform.min_size, each.transform.max_size = (96,), 128
        each.roi_heads.score_thresh = 0.01
        each.rpn._post_nms_top_n["testing"] = 50
    found, expected = model([image])[0], reference([image])[0]
    assert len(found["boxes"])
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_the_detectors_encoder_loads_whole_and_freezes_what_is_asked(norm, tmp_path):
    torch.manual_seed(2)
    source = resnet_encoder("resnet18")
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    file = weights_file(tmp_path / "e.safetensors", source, "backbone.encoder.")
    settings = config.Insseg(
        network2d="resnet18", initial_weights=str(file), encoder_norm=norm, trained_stages=3
    )
    nets = insseg.build(18, settings)
    insseg.load_initial_weights(nets, settings)
    body = mask_rcnn.encoder_of(nets)
    for name, value in body.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
    insseg.freeze_and_select(nets, settings)
    insseg.set_training_mode(nets, settings)
    learned = {n.split(".")[0] for n, m in body.named_modules() if n and m.training}
    assert {"conv1", "bn1", "layer1"}.isdisjoint(learned)
    assert {"layer2", "layer3", "layer4"} <= learned
    frozen = {n.split(".")[0] for n, p in body.named_parameters() if not p.requires_grad}
    learning = {n.split(".")[0] for n, p in body.named_parameters() if p.requires_grad}
    assert learning == {"layer2", "layer3", "layer4"}
    assert frozen == ({"conv1", "bn1", "layer1"} if norm == "batch" else {"conv1", "layer1"})


def test_random_statistics_are_never_frozen():
    with pytest.raises(Pri3DError, match="a random network has no statistics to freeze"):
        insseg.build(18, config.Insseg(encoder_norm="frozen"))


def test_a_linear_probe_changes_the_classifier_alone(data, tmp_path):
    file = weights_file(tmp_path / "u.safetensors", resunet("resnet18_half"))
    out = tmp_path / "probe"
    done("semseg_scannet", data, out, **SMALL, steps=2, initial_weights=str(file), frozen=True)
    before, after = load_file(file), load_file(out / "model.safetensors")
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, after[name]), name
    fresh = semseg.build(20, config.Semseg(**SMALL))
    assert after["classifier.weight"].shape == fresh["classifier"].weight.shape


@pytest.mark.parametrize("network2d", ["resnet18_half", "resnet50"])
def test_deeplab_on_the_same_encoder(network2d, tmp_path):
    """ResNet-50 keeps stride 8 (as torchvision's), the others end at stride 32."""
    settings = config.Semseg(architecture="deeplabv3", network2d=network2d, precision="float32")
    nets = semseg.build(13, settings).eval()
    image = torch.rand(1, 3, 64, 96)
    assert semseg.logits(nets, image, settings).shape == (1, 13, 64, 96)
    last = encode(nets["backbone"]["encoder"], image)[-1]
    assert last.shape[-2:] == ((8, 12) if network2d == "resnet50" else (2, 3))


def test_few_labels_and_left_out_frames_are_counted(data, tmp_path):
    root = tmp_path / "frames"
    shutil.copytree(data, root)
    (root / "scene0000_00" / "label" / "000000.png").unlink()
    damaged = root / "scene0001_00" / "color" / "000100.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    last = done("semseg_scannet", root, tmp_path / "run", **SMALL, steps=12)
    # It came in two epochs of 11 images.
    assert last["skipped"] == {"image cannot be read": 2}
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["left_out"] == 1
    few = tmp_path / "few"
    done("semseg_scannet", root, few, **SMALL, steps=1, percent=40, subset="random")
    chosen = semseg.select(
        open_split("scannet", root, "train"), config.Semseg(percent=40, subset="random")
    )
    assert len(chosen) in (3, 4)
    result = finetune("semseg_scannet", root, tmp_path / "none", **SMALL, steps=1, percent=1)
    assert "1 % of 11 labeled samples is none" in str(result.exception)
    # Nor are missing instance images to blame, where labels alone are asked for.
    (root / "scene0001_00" / "instance" / "000200.png").unlink()
    result = finetune("semseg_scannet", root, tmp_path / "none", **SMALL, steps=1, percent=1)
    assert "1 % of 11 labeled samples is none" in str(result.exception)


def test_images_without_an_instance_file_have_no_part_in_objects(data, tmp_path):
    root = tmp_path / "frames"
    shutil.copytree(data, root)
    for scene in ("scene0000_00", "scene0003_00"):
        (root / scene / "instance" / "000100.png").unlink()
    last = done("insseg_scannet", root, tmp_path / "run", **TINY, steps=1)
    assert last["skipped"] == {}
    assert len(insseg.select(open_split("scannet", root, "train"), config.Insseg())) == 11
    told = evaluate.run(tmp_path / "run", root, tmp_path / "o.json", Options(pictures=0), "cpu", 1)
    assert told["images"] == 3
    assert told["left_out"] == ["scene0003_00/instance/000100.png: missing"]


def test_images_in_which_nothing_is_annotated_teach_nothing(tmp_path):
    root = write_frames25k(tmp_path / "x", train=1, classes=(0,))
    result = finetune("semseg_scannet", root, tmp_path / "run", **SMALL, steps=2)
    assert "nothing could be trained on: batch without labels (2)" in str(result.exception)
    objects = done("insseg_scannet", root, tmp_path / "objects", **TINY, steps=1)
    assert objects["loss"] > 0  # that there is nothing can be learned


def test_objects_are_learned_and_measured(data, tmp_path):
    out = tmp_path / "objects"
    last = done("insseg_scannet", data, out, **TINY, steps=2)
    for term in ("classes", "boxes", "masks", "proposed", "proposed_boxes"):
        assert np.isfinite(last[f"{term}_loss"])
    folder = tmp_path / "submission"
    told = evaluate.run(
        out,
        data,
        tmp_path / "o.json",
        Options(max_samples=2, pictures=1, submission=folder),
        "cpu",
        1,
    )
    assert told["images"] == 2
    assert set(told["coco"]) == {"boxes", "masks"}
    assert len(list(folder.glob("*.txt"))) == 2
    for line in "".join(p.read_text() for p in folder.glob("*.txt")).splitlines():
        mask, label, score = line.split()
        assert np.array(Image.open(folder / mask)).shape == COLOR_SHAPE
        assert int(label) in open_split("scannet", data, "val").things.ids
        assert 0 <= float(score) <= 1
    picture = data / "scene0003_00" / "color" / "000000.jpg"
    words = [str(out), str(picture), "--out", str(tmp_path / "p"), "--device", "cpu"]
    assert CliRunner().invoke(app, ["predict", *words]).exit_code == 0
    for entry in json.loads((tmp_path / "p" / "000000_objects.json").read_text()):
        assert entry["category"] in SCANNET18.names
        assert entry["segmentation"]["size"] == list(COLOR_SHAPE)
    assert (tmp_path / "p" / "000000_predicted.jpg").exists()


def test_the_learning_rate_rises_and_falls():
    settings = config.Semseg(lr=1.0, warmup=0.2, power=1.0)
    rates = [semseg.learning_rate(settings, step, 10) for step in range(1, 11)]
    np.testing.assert_allclose(rates[:3], [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(np.diff(rates[2:]), -1 / 8)
    assert rates[-1] > 0


def test_a_checkpoint_of_pretraining_goes_all_the_way(data, tmp_path):
    """Run -> export -> import -> finetune: the same weights arrive."""
    torch.manual_seed(3)
    run = tmp_path / "joint"
    run.mkdir()
    source = resunet("resnet18")
    checkpoint.save_weights(run / "model.safetensors", nn.ModuleDict({"backbone": source}))
    settings = json.dumps({"mode": "view", **config.Pretrain(steps=1).model_dump()})
    (run / "settings.json").write_text(settings)
    invoke = CliRunner().invoke
    out = tmp_path / "published.pth"
    assert invoke(app, ["export", str(run), str(out), "--to", "published"]).exit_code == 0
    back = tmp_path / "back.safetensors"
    assert invoke(app, ["import", str(out), str(back)]).exit_code == 0
    for init in (run, out, back):
        nets = semseg.build(20, config.Semseg(network2d="resnet18"))
        semseg.load_initial_weights(
            nets, config.Semseg(network2d="resnet18", initial_weights=str(init))
        )
        for name, value in source.state_dict().items():
            assert torch.equal(nets["backbone"].state_dict()[name], value), (init, name)


def test_a_probe_tells_features_that_know_from_those_that_do_not(data, trained, tmp_path):
    """The network that learned these squares knows their classes; random features know less.

    Of 3 seeds, the worst accuracies were 0.94 (trained), and the best 0.56 (random).
    """
    told = {}
    for name, init in (("trained", str(trained[0])), ("random", "random")):
        words = [
            f"--set={k}={json.dumps(v)}" for k, v in (SMALL | {"initial_weights": init}).items()
        ]
        words += ["--data", str(data), "--out", str(tmp_path / f"{name}.json")]
        result = CliRunner().invoke(app, ["probe", "semseg_scannet", *words])
        assert result.exit_code == 0, result.output
        told[name] = json.loads((tmp_path / f"{name}.json").read_text())
        assert told[name]["validation_pixels"] == 4 * 200
    for kind in ("knn", "linear"):
        assert told["trained"][kind]["accuracy"] > 0.6
    assert told["trained"]["linear"]["accuracy"] > told["random"]["linear"]["accuracy"]


def test_the_probes_classifiers_are_exact_where_they_can_be():
    """Separable features: both find every class; k-NN is that of a plain sort."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(1, 4, 300).astype(np.uint8))
    centres = torch.eye(3, 5) * 5
    known = centres[labels.long() - 1] + 0.1 * torch.from_numpy(rng.normal(size=(300, 5))).float()
    pixels = probe.Pixels(known, labels)
    for classify in (probe.nearest_neighbors, probe.linear_classifier):
        assert torch.equal(classify(pixels, known, 3), labels)
    noise = torch.from_numpy(rng.normal(size=(40, 5))).float()
    found = probe.nearest_neighbors(pixels, noise, 3)
    unit = nn.functional.normalize(known)
    for place, answer in zip(nn.functional.normalize(noise), found):
        cosine = unit @ place
        votes = torch.zeros(4)
        for i in cosine.argsort(descending=True)[:20]:
            votes[int(labels[i])] += (cosine[i] / 0.1).exp()
        assert votes.argmax() == answer
