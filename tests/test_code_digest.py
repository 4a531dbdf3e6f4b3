"""The digest of a stage's code follows imports, and sees what acts and nothing else."""

import shutil

import pytest

from pri3d import code_digest
from pri3d.config import MODES

PACKAGE = {
    "__init__.py": '"""A package."""\n__version__ = "1"\n',
    "geometry.py": '"""Geometry."""\n\ndef double(x):\n    """Twice."""\n    return 2 * x\n',
    "unused.py": "value = 1\n",
    "late.py": "value = 1\n",
    "config.py": "value = 1\n",
    "stages/__init__.py": "",
    "stages/near.py": "from pri3d import geometry\nfrom pri3d.config import value\n",
    "stages/far.py": "import pri3d.stages.near as near\n\ndef run():\n    from .. import late\n",
    "matching/__init__.py": "from pri3d.matching.inner import thing\n",
    "matching/inner.py": "from ..unused import value as thing\n",
    "stages/third.py": "from pri3d.matching import thing\nimport numpy, os.path\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in PACKAGE.items():
        path = tmp_path / "pri3d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    yield tmp_path / "pri3d"
    code_digest._read.cache_clear()


def digest(module):
    code_digest._read.cache_clear()
    return code_digest.code_digest(f"pri3d.{module}")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("geometry", {"", "geometry"}),
        ("stages.near", {"", "stages", "stages.near", "geometry"}),
        ("stages.far", {"", "stages", "stages.far", "stages.near", "geometry", "late"}),
        ("stages.third", {"", "stages", "stages.third", "matching", "matching.inner", "unused"}),
    ],
)
def test_the_closure(package, module, expected):
    code_digest._read.cache_clear()
    names = {name.removeprefix("pri3d").removeprefix(".") for name in expected}
    modules = code_digest.import_closure(f"pri3d.{module}")
    assert {name.removeprefix("pri3d").removeprefix(".") for name in modules} == names


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("geometry.py", "Geometry.", "Another text."),
        ("geometry.py", "Twice.", "Another text."),
        ("geometry.py", '    """Twice."""\n', ""),
        ("geometry.py", "return 2 * x", "return (2\n            * x)  # twice"),
        ("__init__.py", '"1"', '"2"'),
        ("config.py", "1", "2"),
        ("unused.py", "1", "2"),
    ],
)
def test_what_does_not_count(package, file, old, new):
    before = digest("stages.near")
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert digest("stages.near") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("geometry.py", "2 * x", "3 * x"),
        ("geometry.py", "double", "twice"),
        ("stages/near.py", "from pri3d import geometry\n", ""),
        ("__init__.py", '"1"\n', '"1"\nimport pri3d.unused\n'),
    ],
)
def test_what_counts(package, file, old, new):
    before = digest("stages.far")
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    assert digest("stages.far") != before


def test_the_digest_does_not_depend_on_the_python_version(package):
    """What it is made of is source text, which is the same from 3.11 on."""
    code_digest._read.cache_clear()
    assert code_digest._read("pri3d.geometry")[1] == "def double(x):\n    return 2 * x"


def test_a_module_that_does_not_exist(package):
    with pytest.raises(ModuleNotFoundError, match=r"pri3d\.nothing"):
        code_digest.code_digest("pri3d.nothing")


def test_a_mode_is_rerun_by_its_own_file_and_by_what_it_imports():
    names = {mode: code_digest.import_closure(f"pri3d.pretrain.modes.{mode}") for mode in MODES}
    for mode, closure in names.items():
        others = {f"pri3d.pretrain.modes.{other}" for other in MODES} - {
            f"pri3d.pretrain.modes.{mode}"
        }
        assert not closure & others, f"{mode} imports another mode"
        assert "pri3d.pretrain.objective" in closure
    training = code_digest.import_closure("pri3d.pretrain.train")
    assert "pri3d.pretrain.modes" in training
    assert not {f"pri3d.pretrain.modes.{mode}" for mode in MODES} & training
    assert "pri3d.pretrain.whole_frames" in names["crd"] - names["ppkt"]


@pytest.mark.parametrize("module", ["pri3d.pretrain.train", "pri3d.pretrain.evaluate"])
def test_the_digest_of_a_mode(module, tmp_path, monkeypatch):
    shutil.copytree(code_digest.ROOT / "pri3d", tmp_path / "pri3d")
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    code_digest._read.cache_clear()
    before = {mode: code_digest.code_of_mode(mode, module) for mode in MODES}
    assert len(set(before.values())) == len(MODES)
    with open(tmp_path / "pri3d/pretrain/modes/crd.py", "a") as file:
        file.write("\nCHANGED = True\n")
    code_digest._read.cache_clear()
    after = {mode: code_digest.code_of_mode(mode, module) for mode in MODES}
    code_digest._read.cache_clear()
    assert [mode for mode in MODES if before[mode] != after[mode]] == ["crd"]


def test_imports_for_type_checkers_do_not_count(package):
    before = digest("stages.near")
    path = package / "__init__.py"
    more = "\nif TYPE_CHECKING:\n    from pri3d.late import value as value\n"
    path.write_text(path.read_text() + more)
    assert digest("stages.near") == before


def test_a_package_can_be_left_out(package):
    path = package / "matching" / "inner.py"
    before = {out: digest_without("stages.third", out) for out in (None, "pri3d.matching")}
    path.write_text(path.read_text() + "more = 1\n")
    assert digest_without("stages.third", None) != before[None]
    assert digest_without("stages.third", "pri3d.matching") == before["pri3d.matching"]


def digest_without(module, without):
    code_digest._read.cache_clear()
    return code_digest.code_digest(f"pri3d.{module}", without=without)
