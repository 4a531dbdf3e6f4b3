"""One source of settings: config.yaml, the schema and the presets say what the models say."""

import json
from pathlib import Path

import pytest
import yaml

from pri3d import config
from pri3d.errors import Pri3DError
from pri3d.pretrain.cloud_modes import MIN_FRAMES
from pri3d.pretrain.samples import micro_batch_of

ROOT = Path(__file__).parent.parent
PRESETS = ROOT / "workflow" / "presets"


def fields():
    """(names on the way to a setting, its field, its default)."""
    for name, field in config.Settings.model_fields.items():
        default = getattr(config.Settings(), name)
        if isinstance(default, config.Section):
            for key, inner in type(default).model_fields.items():
                yield (name, key), inner, getattr(default, key)
        else:
            yield (name,), field, default


def overlay(path):
    """Settings of config.yaml with a preset over it, as Snakemake merges them."""
    return _over(*(yaml.safe_load(each.read_text()) for each in (ROOT / "config.yaml", path)))


def _over(below, above):
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        merged[name] = _over(below[name], value) if both else value
    return merged


def test_config_yaml_has_every_setting_with_its_description():
    lines, expected = (ROOT / "config.yaml").read_text().splitlines(), []
    section = None
    for names, field, _ in fields():
        indent = "  " * (len(names) - 1)
        if len(names) == 2 and names[0] != section:
            section = names[0]
            expected.append(f"{section}:")
        expected += [f"{indent}# {field.description}", f"{indent}{names[-1]}:"]
    found = [line for line in lines[2:] if line]
    for line, start in zip(found, expected, strict=True):
        assert line == start if start.lstrip().startswith("#") else line.startswith(start)


def test_config_yaml_is_valid_and_runs_the_demo():
    settings = config.load(ROOT / "config.yaml")
    assert settings.scans == "demo"
    assert settings.scenes is None


def test_every_setting_has_a_default_that_is_valid():
    assert config.parse(config.Settings().model_dump()) == config.Settings()
    for names, field, _ in fields():
        assert field.description, names
        assert not field.is_required(), names


def test_the_schema_file_is_up_to_date():
    written = json.loads((ROOT / "workflow" / "config.schema.json").read_text())
    assert written == config.json_schema(), "run: make schema"


@pytest.mark.parametrize(
    ("preset", "differences"),
    [
        ("paper", {}),
        (
            "official",
            {
                ("overlap", "rule"): "official",
                ("pretrain", "match_rule"): "official",
                ("pretrain", "symmetric"): True,
                ("pretrain", "depth_loss"): True,
                ("pretrain", "bn_momentum"): "decaying",
                ("semseg", "lr"): 0.01,
                ("semseg", "weight_decay"): 0,
                ("semseg", "flip"): False,
                ("semseg", "colors"): False,
                ("semseg", "precision"): "float32",
                ("semseg", "crop"): 1,
                ("insseg", "steps"): 90000,
                ("insseg", "lr"): 0.0025,
                ("insseg", "warmup"): 0.011,
                ("insseg", "clip_norm"): None,
                ("insseg", "colors"): False,
                ("insseg", "precision"): "float32",
                ("insseg", "norm"): "frozen",
                ("insseg", "trained_stages"): 3,
                ("insseg", "proposals"): 32,
                ("insseg", "score"): 0.5,
                ("finetune", "starts"): ["imagenet", "joint"],
                ("low_data", "starts"): ["imagenet", "moco", "view", "geo", "joint"],
            },
        ),
        ("lite", {("pairs", "max_pairs"): 20000}),
    ],
)
def test_presets_put_the_papers_values_in_place_of_the_demos(preset, differences):
    """The typed defaults are the paper's; only its largest network is not our default."""
    merged = overlay(PRESETS / f"{preset}.yaml")
    settings = config.parse(merged)
    paper = {
        ("pretrain", "network2d"): "resnet50",
        ("pretrain", "initial_weights_2d"): "try_imagenet",
    }
    paper |= {("pretrain", "workers"): 8, ("pretrain", "micro_batch"): 8}
    paper |= {("pretrain", "teacher"): "resnet50", ("pretrain", "teacher_weights"): "imagenet"}
    paper |= {("semseg", "workers"): 8, ("insseg", "workers"): 8, ("semseg3d", "workers"): 8}
    paper |= {("det3d", "workers"): 8, ("det3d", "stem3d"): 5}
    paper |= {("semseg3d", "stem3d"): 5}  # that of its pretraining
    paper |= {("semseg", "network2d"): "resnet50", ("insseg", "network2d"): "resnet50"}
    for names, _, default in fields():
        if names[0] in ("demo", "tasks"):
            continue
        value = settings
        for name in names:
            value = getattr(value, name)
        assert value == (paper | differences).get(names, default), ".".join(names)


@pytest.mark.parametrize("preset", [None, *sorted(path.stem for path in PRESETS.glob("*.yaml"))])
def test_all_that_is_compared_can_be_trained(preset):
    path = PRESETS / f"{preset}.yaml" if preset else ROOT / "config.yaml"
    settings = config.parse(overlay(path))
    asked = {*settings.compare_3d.starts, *settings.finetune.starts3d, *settings.report.runs}
    for mode in asked.intersection(config.PRETRAINED_3D):
        of_mode = settings.of_mode(mode)
        assert micro_batch_of(of_mode, of_mode.processes) >= MIN_FRAMES.get(mode, 1), mode
        # Without a download the demo's teacher knows nothing; a preset's has learned something.
        if preset and mode in config.WITH_TEACHER:
            assert of_mode.teacher_weights == "imagenet"
    if preset:  # the demo makes all of them, which on real scans takes weeks
        assert len(settings.report.runs) == 1
        assert settings.report.tasks == []


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        (
            "ppkt",
            {
                "projection_channels": 128,
                "temperature": 0.04,
                "lr": 0.5,
                "batch": 24,
                "height": 480,
            },
        ),
        ("ppkt-slidr", {"projection_channels": 64, "temperature": 0.07, "schedule": "cosine"}),
        ("pointcontrast", {"channels3d": 32, "matches": 4096, "lr": 0.05, "batch": 32}),
    ],
)
def test_presets_of_the_other_methods_have_their_numbers(preset, numbers):
    settings = config.parse(overlay(PRESETS / f"{preset}.yaml")).pretrain
    expected = {
        "frame_voxel_m": 0.025,
        "stem3d": 3,
        "weight_decay": 1e-4,
        "steps": 60000,
        "width3d": config.Pretrain().width3d,
        "blocks3d": config.Pretrain().blocks3d,
    }
    assert (
        config.parse(overlay(PRESETS / f"{preset}.yaml")).of_task("semseg3d_s3dis").voxel_m == 0.05
    )
    for name, value in (expected | numbers).items():
        assert getattr(settings, name) == value, name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"frames": {"evry": 3}}, "setting frames.evry is unknown; did you mean every?"),
        ({"frame": {"every": 3}}, "setting frame is unknown; did you mean frames?"),
        ({"min_overlap": 0.5}, "setting min_overlap is unknown; did you mean pairs.min_overlap?"),
        ({"frames": {"rule": "paper"}}, "frames.rule is unknown; did you mean overlap.rule?"),
        ({"zzz": 1}, "setting zzz is unknown; known: scans, scenes, held_out,"),
        ({"frames": {"every": 0}}, "frames.every: input should be greater than or equal to 1"),
        ({"frames": {"every": 0}}, "it is: use every n-th frame of a scan"),
        ({"overlap": {"rule": "mine"}}, "input should be 'paper' or 'official' (given 'mine')"),
        ({"modes": {"crd": {"lr": -1}}}, "modes.crd.lr: input should be greater than 0"),
        ({"modes": {"crd": {"lrr": 1}}}, "modes.crd.lrr: extra inputs are not permitted"),
        ({"tasks": {"semseg3d_s3dis": {"voxel_m": 0}}}, "tasks.semseg3d_s3dis.voxel_m: input"),
        ({"modes": {"pptk": {}}}, "modes.pptk"),
        ({"frames": 3}, "setting frames: input should be a valid dictionary"),
        ({"pretrain": {"width3d": [1, 2]}}, "setting pretrain.width3d: list should have at least"),
        ({"pretrain": {"width3d": ["x"] * 8}}, "setting pretrain.width3d.0: input should be"),
    ],
)
def test_errors_name_the_setting_and_what_to_do(given, said):
    with pytest.raises(Pri3DError) as caught:
        config.parse(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_from_the_command_line_becomes_typed():
    """Snakemake hands on what stands after --config as text."""
    settings = config.parse({"frames": {"every": "3"}, "pretrain": {"augment": "false"}})
    assert settings.frames.every == 3
    assert settings.pretrain.augment is False


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_all_defaults(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert config.load(tmp_path / "config.yaml") == config.Settings()


def test_one_mode_or_task_may_have_other_settings():
    settings = config.parse(overlay(PRESETS / "ppkt.yaml"))
    ppkt, pointcontrast = settings.of_mode("ppkt"), settings.of_mode("pointcontrast")
    assert (ppkt.lr, ppkt.temperature, ppkt.channels3d) == (0.5, 0.04, 96)
    assert (pointcontrast.lr, pointcontrast.temperature, pointcontrast.channels3d) == (
        0.05,
        0.4,
        32,
    )
    assert settings.of_task("semseg3d_scannet").voxel_m == 0.02
    assert settings.of_task("det3d_sunrgbd").points == 20000
    assert settings.of_task("det3d_scannet").points == 40000
