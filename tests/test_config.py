"""One source of settings: config.yaml, schema, page and presets agree with the models."""

import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from pri3d import config
from pri3d.config.settings import section_class
from pri3d.errors import Pri3DError

ROOT = Path(__file__).parent.parent
PRESETS = sorted(path.stem for path in (ROOT / "workflow" / "presets").glob("*.yaml"))
DEMO = config.read_yaml(config.DEMO)
# Version 0.1: the resolved settings of config.yaml, and what each preset changed of them.
OLD = json.loads((ROOT / "tests" / "data" / "presets_0_1.json").read_text())


def with_preset(name):
    """Settings of config.yaml with a preset over it, as in the workflow."""
    return config.parse(config.with_preset({"preset": name} if name else {}, DEMO))


def fields():
    """(section or nothing, key, field) of every setting."""
    for name, field in config.Settings.model_fields.items():
        default = getattr(config.Settings(), name)
        if isinstance(default, config.Section):
            for key, inner in type(default).model_fields.items():
                yield name, key, inner
        else:
            yield "", name, field


def field_of(section, key):
    model = section_class(section) if section else config.Settings
    return model.model_fields[key]


def test_config_yaml_describes_every_key():
    section, lines = "", config.DEMO.read_text().splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"( *)(\w+):(.*)$", line)
        if not match:
            continue
        indent, key, value = match.groups()
        if not indent and not value:
            section = key
            continue
        section = section if indent else ""
        description = field_of(section, key).description
        if section == "network3d" or not description:
            description = config.Network3d.model_fields[key].description
        assert lines[number - 1] == f"{indent}# {description}"


def test_config_yaml_states_every_setting_once():
    """In its own section or in one that it inherits from; twice only where the values differ."""
    keys = sum(len(value) if isinstance(value, dict) and value else 1 for value in DEMO.values())
    assert keys <= 170
    for section, key, _ in fields():
        if key in NETWORKS or (section in config.KINDS and key in LEFT_OUT):
            continue
        if not section:
            assert key in DEMO
            continue
        stated = [
            DEMO[each][key]
            for each in (*config.INHERITS.get(section, ()), section)
            if key in DEMO[each]
        ]
        assert stated, f"{section}.{key}"
        for below, above in itertools.pairwise(stated):
            assert below != above, f"{section}.{key}"
    assert DEMO.keys() >= NETWORKS


NETWORKS = {"network2d", "network3d"}  # described at the top level
LEFT_OUT = {"initial_weights"}  # of a task: for `pri3d finetune` only


def test_config_yaml_is_valid_and_runs_the_demo():
    settings = config.load(config.DEMO)
    assert settings.scans == "demo"
    assert settings.scenes is None


def test_every_setting_has_a_default_that_is_valid():
    assert config.parse(config.Settings().model_dump()) == config.Settings()
    for section, key, field in fields():
        assert field.description or key in NETWORKS, (section, key)
        assert not field.is_required(), (section, key)


def test_the_schema_file_is_up_to_date():
    written = json.loads((ROOT / "workflow" / "config.schema.json").read_text())
    assert written == config.json_schema(), "run: make schema"


@pytest.mark.parametrize("path", [config.DEMO, *(ROOT / "workflow" / "presets").glob("*.yaml")])
def test_the_schema_accepts_our_files(path):
    jsonschema.validate(config.read_yaml(path), config.json_schema())


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ({"variants": {"a": {"mode": "joint", "seeds": 2, "lr": 0.1}}}, True),
        ({"variants": {"a": {"mode": "joint", "network3d": {"channels": 32}}}}, True),
        ({"variants": {"a": {"mode": "joint", "network3d": "minkunet18a"}}}, True),
        ({"variants": {"a": {"mode": "jiont"}}}, False),
        ({"variants": {"a": {"lrr": 1}}}, False),
        ({"variants": {"a": {"lr": "fast"}}}, False),
        ({"tasks": {"semseg_nyuv2": {"batch": 2}}}, True),
        ({"tasks": {"semseg_nyuv2": {"voxel_m": 2}}}, False),
        ({"tasks": {"semseg": {"batch": 2}}}, False),
    ],
)
def test_the_schema_knows_variants_and_tasks(given, valid):
    assert jsonschema.Draft202012Validator(config.json_schema()).is_valid(given) == valid


def test_the_page_of_settings_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == config.markdown(), "run: make schema"
    for section, key, _ in fields():
        assert f"| `{key}` | " in page or key in NETWORKS, (section, key)


# ---- Presets


def test_presets_are_short():
    assert (
        sum(len((config.files.PRESETS / f"{p}.yaml").read_text().splitlines()) for p in PRESETS)
        <= 230
    )


@pytest.mark.parametrize("name", list(OLD))
def test_presets_are_those_of_0_1(name):
    """The presets of other 3D methods left the 2D half at the demo's values, which was a fault."""
    old = config.merged(OLD["config"], OLD[name])
    new = with_preset(None if name == "config" else name)
    paper = with_preset("paper")
    for section, settings, wanted, like in compared(old, new, paper):
        for key, value in wanted.items():
            if value == at(settings, section, key):
                continue
            where = f"{section}.{key}"
            if key == "checkpoint_every" and section in config.KINDS:
                continue  # stated once, in `training`
            assert name in ("ppkt", "ppkt-slidr", "pointcontrast"), where
            assert where in HALF_2D or section in ("semseg", "insseg", "low_data"), where
            assert value == OLD["config"][section][key], where
            assert at(settings, section, key) == at(like, section, key), where


HALF_2D = ("pretrain.net2d", "pretrain.init2d", "pretrain.moco_queue", "evaluate.most_pairs")


def compared(old, new, paper):
    """(section, settings, settings of 0.1, the same of the preset paper) of all that 0.1 had."""
    for section, wanted in old.items():
        if section in ("modes", "tasks"):
            continue
        if isinstance(wanted, dict):
            now = config.RENAMED.get(section, section)
            yield section, getattr(new, now), wanted, getattr(paper, now)
        else:
            assert getattr(new, section) == wanted
    for mode in config.MODES:
        wanted = old["pretrain"] | old["modes"].get(mode, {})
        yield "pretrain", new.of_variant(mode), wanted, paper.of_variant(mode)
    for name, task in config.TASKS.items():
        wanted = old[task.kind] | old["tasks"].get(name, {})
        yield task.kind, new.of_task(name), wanted, paper.of_task(name)


def at(settings, section, old_key):
    """The present value of a setting of 0.1."""
    *above, key = config.RENAMED.get(f"{section}.{old_key}", old_key).split(".")
    return getattr(settings.network3d if above == ["network3d"] else settings, key)


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_what_is_compared_can_be_trained(preset):
    settings = with_preset(preset)
    config.check_run_names(settings)
    names = {*settings.compare_3d.initial_weights, *settings.finetune.initial_weights_3d}
    for mode in names.intersection(config.MODES) | set(settings.report.runs):
        record, section = config.MODES[mode], settings.of_variant(mode)
        per_process = section.batch // section.processes
        assert min(section.micro_batch or per_process, per_process) >= record.min_frames
        # Without a download the demo's teacher is random; a preset's is not.
        if preset and record.teacher:
            assert section.teacher_weights == "imagenet"
    if preset:  # the demo makes all of them, which on real scans takes weeks
        assert len(settings.report.runs) == 1
        assert settings.report.tasks == []


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("ppkt", {"projection_channels": 128, "temperature": 0.04, "lr": 0.5, "batch": 24}),
        ("ppkt-slidr", {"projection_channels": 64, "temperature": 0.07, "schedule": "cosine"}),
        ("pointcontrast", {"matches": 4096, "lr": 0.05, "batch": 32, "schedule": "exponential"}),
        ("paper", {"network2d": "resnet50", "micro_batch": 8, "lr": 0.1, "symmetric": False}),
        ("official", {"network2d": "resnet50", "symmetric": True, "depth_loss": True}),
    ],
)
def test_presets_have_the_published_values(preset, expected):
    section = with_preset(preset).pretrain
    for name, value in expected.items():
        assert getattr(section, name) == value, name


def test_a_preset_is_chosen_by_its_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: lite\npretrain.lr: 0.3\nsemseg: {lr: 0.2}\n")
    settings = config.load(path)
    assert (settings.preset, settings.pairs.max_pairs, settings.network2d) == (
        "lite",
        20000,
        "resnet50",
    )
    assert (settings.pretrain.lr, settings.semseg.lr, settings.pretrain.height) == (0.3, 0.2, 240)
    below = config.merged(DEMO, {"preset": "paper"})  # chosen in config.yaml itself
    assert config.parse(config.with_preset({}, below)).network2d == "resnet50"
    with pytest.raises(Pri3DError, match=r"no preset papr; did you mean paper\? known: full_size"):
        config.with_preset({"preset": "papr"})


def test_numbers_over_a_named_network_change_that_network():
    below = {"network3d": "minkunet18a"}
    settings = config.parse(config.merged(below, {"network3d": {"channels": 32}}))
    assert (settings.network3d.blocks, settings.network3d.channels) == ([2] * 8, 32)
    settings = config.parse(below | {"pretrain": {"network3d": {"stem_kernel": 3}}})
    assert settings.pretrain.network3d.blocks == [2] * 8
    assert settings.semseg3d.network3d.stem_kernel == 5


# ---- Keys


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"frames": {"evry": 3}}, "setting frames.evry is unknown; did you mean frames.every?"),
        ({"frame": {"every": 3}}, "setting frame is unknown; did you mean frames?"),
        ({"min_overlap": 0.5}, "setting min_overlap is unknown; did you mean pairs.min_overlap?"),
        ({"frames": {"rule": "paper"}}, "frames.rule is unknown; did you mean overlap.rule?"),
        (
            {"pretrain.learning_rate": 1},
            "pretrain.learning_rate is unknown; did you mean pretrain.lr?",
        ),
        ({"batch_size": 1}, "setting batch_size is unknown; did you mean pretrain.batch?"),
        ({"zzz": 1}, "setting zzz is unknown; known: preset, scans, scenes, held_out,"),
        ({"frames": {"every": 0}}, "frames.every: input should be greater than or equal to 1"),
        ({"frames.every": 0}, "it is: use every n-th frame of a scan"),
        ({"overlap": {"rule": "mine"}}, "input should be 'paper' or 'official' (given 'mine')"),
        ({"variants": {"crd": {"lr": -1}}}, "variants.crd.lr: input should be greater than 0"),
        (
            {"variants": {"crd": {"lrr": 1}}},
            "variants.crd.lrr is unknown; did you mean variants.crd.lr?",
        ),
        (
            {"variants.a.mode": "jiont"},
            "variants.a.mode: there is no mode jiont; did you mean joint?",
        ),
        (
            {"variants": {"pptk": {}}},
            "variants.pptk: no mode is named pptk; add `mode: ` and one of",
        ),
        ({"tasks": {"semseg3d_s3dis": {"voxel_m": 0}}}, "tasks.semseg3d_s3dis.voxel_m: input"),
        ({"tasks": {"semseg_nyu": {}}}, "setting tasks.semseg_nyu: there is no task semseg_nyu"),
        (
            {"report": {"tasks": ["x"]}},
            "report.tasks.0: there is no task x; known: semseg_scannet,",
        ),
        ({"low_data": {"tasks": ["det3d_scannet"]}}, "there is no 2D task det3d_scannet"),
        ({"frames": 3}, "setting frames: input should be a valid dictionary"),
        ({"network3d": {"widths": [1, 2]}}, "setting network3d.widths: list should have at least"),
        ({"network3d": {"widths": ["x"] * 8}}, "setting network3d.widths.0: input should be"),
        ({"network3d": "minkunet"}, "no 3D network is named minkunet; known: minkunet14a,"),
    ],
)
def test_errors_name_the_setting_and_what_to_do(given, expected):
    with pytest.raises(Pri3DError) as caught:
        config.parse(given)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dotted_keys_and_text_are_understood():
    """Snakemake hands on what stands after --config as text."""
    settings = config.parse(
        {
            "frames.every": "3",
            "pretrain": {"augment_color": "false"},
            "pretrain.lr": "0.05",
            "pairs": {"max_pairs": "null"},
            "variants.joint_depth.mode": "joint",
            "variants": {"joint_depth": {"network3d.channels": "32"}},
        }
    )
    assert settings.frames.every == 3
    assert (settings.pretrain.augment_color, settings.pretrain.lr) == (False, 0.05)
    assert settings.pairs.max_pairs is None
    assert settings.mode_of("joint_depth") == "joint"
    assert settings.of_variant("joint_depth").network3d.channels == 32


@pytest.mark.parametrize("old", config.RENAMED)
def test_every_old_key_gives_an_error_that_names_the_new_one(old):
    new = config.RENAMED[old]
    section, _, key = old.partition(".")
    value = {} if not key else 1
    assert field_exists(new)
    assert not field_exists(old)
    nested = {section: {key: value}} if key else {section: value}
    for given in (nested, {old: value}):
        with pytest.raises(Pri3DError, match=re.escape(f"setting {old} is now named {new}")):
            config.parse(given)
    if section == "pretrain":
        inner = new.removeprefix("pretrain.")
        for group in ("variants", "modes"):
            with pytest.raises(Pri3DError) as caught:
                config.parse({group: {"crd": {key: 1}}})
            message = f"setting {group}.crd.{key} is now named variants.crd.{inner}"
            assert message in str(caught.value)
        with pytest.raises(Pri3DError, match=re.escape("is now named ")):
            config.pretrain_settings({}, "joint", {key: 1})
    if section in config.KINDS:
        task = next(name for name, task in config.TASKS.items() if task.kind == section)
        with pytest.raises(Pri3DError, match=rf"setting tasks\.{task}\.{key} is now named tasks\."):
            config.parse({"tasks": {task: {key: 1}}})
        with pytest.raises(Pri3DError, match=re.escape("is now named ")):
            config.task_settings({}, task, {f"{section}.{key}": 1})


def field_exists(name):
    model, parts = config.Settings, name.split(".")
    for number, part in enumerate(parts):
        if part not in model.model_fields:
            return False
        if number < len(parts) - 1:
            model = section_class(part)
    return True


@pytest.mark.parametrize("name", list(OLD))
def test_a_whole_preset_of_0_1_names_all_its_new_keys(name):
    given = OLD[name]
    old = config.old_keys(given)
    assert {"scans", "frames", *old} - {"scans", "frames"} == set(old)
    if not old:
        config.parse(given)
        return
    with pytest.raises(Pri3DError) as caught:
        config.parse(given)
    for names in old.items():
        assert "setting {} is now named {}".format(*names) in str(caught.value)
    for key in OLD["config"]:
        assert key in config.Settings.model_fields or key in config.RENAMED
    renamed = {key for section, values in OLD["config"].items() if isinstance(values, dict)
               for key in ({f"{section}.{k}" for k in values} if section != "labelled" else ())
               if not field_exists(key)}  # fmt: skip
    assert renamed <= set(config.RENAMED)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_all_defaults(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert config.load(tmp_path / "config.yaml") == config.Settings()


# ---- Variants, tasks, and the settings of one training


def test_one_mode_or_task_may_have_other_settings():
    settings = with_preset("ppkt")
    ppkt, pointcontrast = settings.of_variant("ppkt"), settings.of_variant("pointcontrast")
    assert (ppkt.lr, ppkt.temperature, ppkt.network3d.channels) == (0.5, 0.04, 96)
    assert (pointcontrast.lr, pointcontrast.temperature) == (0.05, 0.4)
    assert (pointcontrast.network3d.channels, pointcontrast.network3d.stem_kernel) == (32, 3)
    assert settings.of_task("semseg3d_scannet").voxel_m == 0.02
    assert settings.of_task("det3d_sunrgbd").max_points == 20000
    assert settings.of_task("det3d_scannet").max_points == 40000


TWO_SEEDS = {"variants.a": {"mode": "geo", "seeds": 2}}


def test_runs_of_variants_and_seeds():
    variants = {
        "deep": {"mode": "joint", "seeds": 2, "seed": 7, "depth_loss": True},
        "view": {"lr": 1},
    }
    runs = config.pretrain_runs(config.parse({"variants": variants}))
    assert list(runs)[-2:] == ["deep-0", "deep-1"]
    assert set(config.MODES) <= set(runs)
    assert [runs[f"deep-{n}"].settings.seed for n in range(2)] == [7, 8]
    assert (runs["deep-1"].mode, runs["deep-1"].variant) == ("joint", "deep")
    assert runs["deep-0"].settings.depth_loss
    assert (runs["view"].settings.lr, runs["geo"].settings.lr) == (1, 0.1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"finetune.initial_weights": ["jint"]}, "no run or weight file jint; did you mean joint?"),
        ({"finetune.initial_weights_3d": ["imagenet"]}, "finetune.initial_weights_3d: there is no"),
        ({"finetune.initial_weights_3d": ["view"]}, "finetune.initial_weights_3d: there is no"),
        ({"report.runs": ["jiont"]}, "no mode or variant jiont; did you mean joint?"),
        ({"variants.scratch": {"mode": "view"}}, "variants.scratch: the name is taken"),
        ({"finetune.weight_files": {"joint": "a.pth"}}, "weight_files: the name joint is taken"),
        ({"finetune.weight_files": {"a-0": "a"}, **TWO_SEEDS}, "the name a-0 is taken"),
        ({"semseg.initial_weights": "a.pth"}, "semseg.initial_weights: is for `pri3d finetune`"),
    ],
)  # fmt: skip
def test_names_that_refer_to_runs_are_checked(given, expected):
    with pytest.raises(Pri3DError) as caught:
        config.check_run_names(config.parse(given))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": 0.05}, {"lr": 0.05}),
        ({"pretrain.lr": 0.05}, {"lr": 0.05}),
        ({"variants.geo.lr": 0.05}, {"lr": 0.05}),
        ({"training.threads": 4}, {"threads": 4}),
        ({"network3d.widths": [8] * 8}, {"network3d.widths": [8] * 8, "network3d.channels": 96}),
        ({"network3d": "res16unet34c"}, {"network3d.channels": 32}),
        ({"pretrain.network2d": "resnet50"}, {"network2d": "resnet50"}),
    ],
)
def test_settings_of_a_pretraining(changes, expected):
    raw = {"variants": {"geo": {"lr": 0.3}}}
    mode, settings = config.pretrain_settings(raw, "geo", changes)
    assert mode == "geo"
    assert settings.lr == expected.get("lr", 0.3)
    for key, value in expected.items():
        current = settings
        for part in key.split("."):
            current = getattr(current, part)
        assert current == value


def test_settings_of_a_task():
    raw = {"training": {"threads": 2}, "finetune": {"log_every": 3}, "semseg": {"log_every": 5}}
    changes = {"semseg.lr": 0.3, "training.workers": 7, "finetune.percent": 20, "batch": 3}
    settings = config.task_settings(raw, "semseg_nyuv2", changes)
    assert (settings.lr, settings.workers, settings.percent, settings.batch) == (0.3, 7, 20, 3)
    assert (settings.threads, settings.log_every) == (2, 5)
    changes = {"finetune.log_every": 9, "finetune.initial_weights": "imagenet"}
    settings = config.task_settings(raw, "semseg_nyuv2", changes)
    assert settings.log_every == 5  # the file's own section is stronger, as everywhere
    assert settings.initial_weights == "imagenet"
    assert config.task_settings(raw, "insseg_nyuv2", changes).log_every == 9


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lrr": 1}, "setting pretrain.lrr is unknown; did you mean pretrain.lr?"),
        ({"learning_rate": 1}, "pretrain.learning_rate is unknown; did you mean pretrain.lr?"),
        ({"training.thread": 1}, "training.thread is unknown; did you mean training.threads?"),
        ({"frames.every": 1}, "frames.every does not apply here; settings of pretrain, training,"),
        ({"semseg.lr": 1}, "setting semseg.lr does not apply here"),
        ({"net2d": 1}, "setting net2d is now named network2d"),
        ({"pretrain.augment": 1}, "setting pretrain.augment is now named augment_color"),
        ({"lr": 0}, "setting pretrain.lr: input should be greater than 0"),
        ({"network3d.width": 1}, "width is unknown; did you mean pretrain.network3d.widths?"),
    ],
)  # fmt: skip
def test_wrong_changes_of_a_pretraining(changes, expected):
    with pytest.raises(Pri3DError) as caught:
        config.pretrain_settings({}, "joint", changes)
    assert expected in str(caught.value)


def test_the_yaml_files_have_no_key_twice():
    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    for path in [config.DEMO, *(ROOT / "workflow" / "presets").glob("*.yaml")]:
        yaml.load(path.read_text(), Loader)
