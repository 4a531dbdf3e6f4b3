"""Which part may import which, that no imports form a cycle, and that the offline side works
without torch."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pri3d"
ROOT = PACKAGE.parent

BASICS = {"", "errors", "geometry", "store", "artefacts", "config", "classes", "boxes", "selection"}
OFFLINE = BASICS | {"sources", "matching"}
TORCH = BASICS | {"matching", "transforms", "sparse", "models", "weights", "run", "code_digest"}
# Part of the package -> the parts it may import besides itself.
ALLOWED = {
    # The public API, whose modules are imported when a name is first used.
    "": OFFLINE | TORCH | {"api", "pretrain", "finetune", "datasets"},
    "api": OFFLINE | TORCH | {"pretrain", "finetune", "datasets"},
    "errors": set(),
    "classes": set(),
    "boxes": set(),
    "selection": set(),
    "code_digest": set(),
    "geometry": {"errors"},
    "config": {"errors"},
    "store": {"errors"},
    "artefacts": {"errors", "geometry", "store"},
    "sources": BASICS,
    "matching": BASICS,
    "demo": OFFLINE | {"datasets"},
    "stages": OFFLINE,
    "exporters": OFFLINE | {"run", "weights"},
    "datasets": OFFLINE,
    "transforms": {"errors", "geometry", "matching"},
    "metrics": {"boxes", "errors"},
    "sparse": BASICS,
    "models": BASICS | {"sparse"},
    "run": BASICS | {"code_digest", "models", "sparse"},
    "weights": BASICS | {"sparse", "models", "run"},
    "pretrain": TORCH | {"sources"},
    "finetune": TORCH | {"datasets", "metrics"},
    "verify": OFFLINE | {"run"},
    "report": OFFLINE | {"demo", "run"},
    "cli": OFFLINE
    | {"demo", "stages", "exporters", "datasets", "pretrain", "finetune", "weights"}
    | {"run", "verify", "report"},
    "__main__": {"cli"},
}
# Parts, and modules of other parts, that import torch.
MAY_USE_TORCH = {"sparse", "models", "transforms", "weights", "pretrain", "finetune"}
MAY_USE_TORCH_MODULES = {
    "pri3d.api.networks",
    "pri3d.api.pairs",
    "pri3d.run.batches",
    "pri3d.run.checkpoint",
    "pri3d.run.identity",
    "pri3d.run.loop",
    "pri3d.run.metrics",
    "pri3d.run.networks",
    "pri3d.run.processes",
    "pri3d.run.signals",
    "pri3d.run.step",
}
TORCH_LIBRARIES = {"torch", "torchvision", "safetensors.torch", "lightning"}
# Distributions whose modules have another name.
MODULE_NAMES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "tensorboard": "torch.utils.tensorboard",
}
# Plugins that Snakemake imports, and the profile that names them.
PLUGINS = {"snakemake-executor-plugin-slurm": ("workflow/profiles/slurm", "executor: slurm")}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def part_of(module: str) -> str:
    """pri3d.sources.sens belongs to sources."""
    return [*module.split("."), ""][1]


def may_use_torch(module: str) -> bool:
    return part_of(module) in MAY_USE_TORCH or module in MAY_USE_TORCH_MODULES


def imported(path: Path) -> Iterator[str]:
    """Absolute names of everything that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path: Path) -> set[str]:
    """The modules of this package that a module imports."""
    within = {name for name in imported(path) if name.split(".")[0] == "pri3d"}
    # `from pri3d.store import publish` names no module of its own.
    return {name if name in NAMES else name.rpartition(".")[0] for name in within}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_import_directions(path):
    part = part_of(name_of(path))
    assert part in ALLOWED, f"{path}: name in ALLOWED the parts that {part} may import"
    modules = imported_modules(path)
    wrong = {name for name in modules if part_of(name) not in ALLOWED[part] | {part}}
    assert not wrong
    if part == "stages":
        assert not {name for name in modules if part_of(name) == "stages"}, "stages are apart"


def test_no_import_cycles():
    """Between any two modules, imports inside functions included. The root package, which every
    import loads, is left out: its public API imports modules when a name is first used."""
    graph = {name: imported_modules(path) - {"pri3d"} for name, path in NAMES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_offline_side_does_not_name_torch(path):
    if not may_use_torch(name_of(path)):
        heads = {tuple(name.split(".")[: n + 1]) for name in imported(path) for n in range(2)}
        assert not {".".join(head) for head in heads} & TORCH_LIBRARIES


def loaded_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_importing_the_offline_side_loads_no_torch():
    offline = [name for name in NAMES if "__main__" not in name and not may_use_torch(name)]
    assert {"pri3d.stages.clouds", "pri3d.run.folder"} <= set(offline)
    loaded = loaded_by(*offline)
    assert set(offline) <= loaded
    assert not {name.split(".")[0] for name in loaded} & {"torch", "torchvision", "open3d"}


def test_the_command_line_loads_nothing_heavy():
    heavy = {"torch", "open3d", "numba", "numpy", "scipy", "h5py", "matplotlib", "snakemake"}
    heavy |= {"jaxtyping", "PIL"}
    loaded = loaded_by("pri3d", "pri3d.cli", "pri3d.code_digest")
    assert not {name.split(".")[0] for name in loaded} & heavy


def distributions(requirements: list[str]) -> list[str]:
    return [re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in requirements]


def test_every_declared_dependency_is_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = project["dependencies"] + [
        requirement for extra in extras if extra != "dev" for requirement in extras[extra]
    ]
    used = {name for path in MODULES for name in imported(path)}
    for path in (ROOT / "workflow").rglob("*.smk"):
        used |= set(re.findall(r"^\s*(?:import|from) ([\w.]+)", path.read_text(), re.MULTILINE))
    unused = []
    for distribution in distributions(declared):
        if distribution in PLUGINS:
            folder, text = PLUGINS[distribution]
            files = (ROOT / folder).glob("*")
            is_used = any(text in file.read_text() for file in files if file.is_file())
        else:
            module = MODULE_NAMES.get(distribution, distribution)
            is_used = any(f"{name}.".startswith(f"{module}.") for name in used)
        if not is_used:
            unused.append(distribution)
    assert not unused, "remove them from pyproject.toml, constraints.txt and envs/"
