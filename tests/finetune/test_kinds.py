"""Every kind of task has the functions that its record promises; options that do not apply."""

import importlib
import inspect

import pytest
from typer.testing import CliRunner

from pri3d.cli import app
from pri3d.code_digest import code_of_task, import_closure
from pri3d.config import KINDS, TASKS, Pretrain, inapplicable_option
from pri3d.errors import Pri3DError
from pri3d.finetune import evaluate, predict, tasks
from pri3d.run.folder import write_settings


def promised(kind):
    """Protocol function -> names of its parameters."""
    protocols = [tasks.TrainingModule, tasks.MeasuringModule]
    if KINDS[kind].submission:
        protocols.append(tasks.SubmissionModule)
    if KINDS[kind].pictures:
        protocols.append(tasks.ImageModule)
    return {
        name: [parameter for parameter in inspect.signature(function).parameters][1:]
        for protocol in protocols
        for name, function in vars(protocol).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_the_functions_of_its_protocols(kind):
    module = importlib.import_module(tasks.module_name(kind))
    functions = promised(kind)
    assert "losses" in functions
    assert "predict_items" in functions
    for name, parameters in functions.items():
        assert list(inspect.signature(getattr(module, name)).parameters) == parameters, name
    assert isinstance(module.ITEMS_AT_ONCE, int)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_does_not_depend_on_the_code_of_another(kind):
    """A change in one kind's file reruns its own tasks and no others."""
    used = import_closure("pri3d.finetune.train") | import_closure(tasks.module_name(kind))
    used |= import_closure("pri3d.finetune.evaluate")
    assert not {tasks.module_name(other) for other in KINDS if other != kind} & used
    digests = {code_of_task(other) for other in KINDS}
    assert len(digests) == len(KINDS)


@pytest.mark.parametrize("task", TASKS)
def test_options_that_do_not_apply_are_named(task):
    def message(split="val", submission=False, pictures=False):
        return inapplicable_option(task, split=split, submission=submission, pictures=pictures)

    assert message() is None
    benchmark = task in ("semseg_scannet", "insseg_scannet", "semseg3d_scannet")
    assert (message(submission=True) is None) == benchmark
    assert (message(split="test") is None) == benchmark
    assert (message(pictures=True) is None) == task.startswith(("semseg_", "insseg_"))


def test_a_pretraining_run_is_refused_in_one_sentence(tmp_path):
    run = tmp_path / "view"
    run.mkdir()
    write_settings(run, "pretrain", "view", Pretrain())
    (tmp_path / "data").mkdir()
    with pytest.raises(Pri3DError, match=r"view: is a pretraining run \(view\); give a run of"):
        evaluate.run(run, tmp_path / "data", tmp_path / "out.json")
    with pytest.raises(Pri3DError, match=r"view: is a pretraining run \(view\)"):
        list(predict.run(run, [], tmp_path / "out"))
    words = ["evaluate", str(run), "--data", str(tmp_path / "data")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "pretraining run (view)" in " ".join(result.output.split())
