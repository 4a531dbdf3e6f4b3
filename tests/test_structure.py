"""Rules of the layout: short modules, one owner for the files of a run, and records of modes and
tasks in place of comparisons with their names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pri3d import config
from pri3d.config import KINDS, MODES, TASKS

PACKAGE = Path(__file__).parent.parent / "pri3d"
MODULES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))
}
MAX_LINES = 350
# The cache of numba notices changes in the module of a compiled function only.
LONG_MODULES = {"matching/kernel.py"}
RUN_FILES = ("settings.json", "provenance.json")
NAMES = {*MODES, *TASKS, *KINDS}
OWNERS_OF_NAMES = ("config/modes.py", "config/tasks.py", "pretrain/modes/", "finetune/tasks/")
OWNERS_OF_NAMES += ("config/renamed.py",)  # sections of the settings of version 0.1


def docstrings(tree: ast.Module) -> set[ast.Constant]:
    """The string constants that are docstrings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(node.value)
    return found


def strings_in(node: ast.expr | ast.pattern) -> Iterator[str]:
    """The string constants that a value is compared with."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            for element in elements:
                yield from strings_in(element)
        case ast.Call(args=[argument]):  # frozenset({...}), set(...)
            yield from strings_in(argument)
        case ast.MatchValue(value=value):
            yield from strings_in(value)
        case ast.MatchOr(patterns=patterns):
            for pattern in patterns:
                yield from strings_in(pattern)


def compared_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every comparison with the name of a mode, a task or a kind of task."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.match_case):
            sides = [node.pattern]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("startswith", "endswith")
        ):
            sides = node.args
        else:
            continue
        line = sides[0].lineno if sides else 0
        yield from ((line, name) for side in sides for name in strings_in(side) if name in NAMES)


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short(name):
    if name not in LONG_MODULES:
        assert MODULES[name].count("\n") <= MAX_LINES


@pytest.mark.parametrize("file", RUN_FILES)
def test_one_module_names_the_files_of_a_run(file):
    naming = []
    for name, source in MODULES.items():
        tree = ast.parse(source)
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        for text in set(texts) - docstrings(tree):
            if isinstance(text.value, str) and file in text.value and name != "run/folder.py":
                naming.append(f"pri3d/{name}:{text.lineno}")
    assert not naming, "use pri3d.run.folder"


@pytest.mark.parametrize("name", MODULES)
def test_names_of_modes_and_tasks_are_not_compared(name):
    """What distinguishes a mode or a task is in its record and its module."""
    if not name.startswith(OWNERS_OF_NAMES):
        found = [f"line {line}: {text}" for line, text in compared_names(ast.parse(MODULES[name]))]
        assert not found, "ask the record in pri3d/config/modes.py or tasks.py"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('mode == "moco"', ["moco"]),
        ('mode in ("view", "joint")', ["view", "joint"]),
        ('task.startswith("semseg")', ["semseg"]),
        ('match kind:\n    case "det3d" | "insseg": pass', ["det3d", "insseg"]),
        ('rule == "paper"', []),
        ('MODES["view"]', []),
    ],
)
def test_comparisons_are_found(source, found):
    assert [name for _, name in compared_names(ast.parse(source))] == found


def test_finetuning_does_not_ask_for_the_class_of_settings():
    classes = {
        name
        for name, value in vars(config).items()
        if isinstance(value, type) and issubclass(value, BaseModel)
    }
    assert {"Semseg", "Det3d"} <= classes
    found = []
    for name, source in MODULES.items():
        if not name.startswith("finetune/"):
            continue
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
                    words = set(re.findall(r"\w+", ast.unparse(kinds)))
                    found += [f"pri3d/{name}:{node.lineno}"] if words & classes else []
    assert not found, "put the difference into the module of the task"
