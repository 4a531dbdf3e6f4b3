"""Who may import whom, and that the offline side works without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pri3d"

FOUNDATION = {"", "errors", "geometry", "store", "artefacts", "config", "classes"}
OFFLINE = FOUNDATION | {"scans", "matching"}
TORCH = FOUNDATION | {"matching", "sparse", "models"}
# Part of the package -> the parts it may import besides itself.
ALLOWED = {
    "": set(),
    "errors": set(),
    "classes": set(),
    "closure": set(),
    "geometry": {"errors"},
    "config": {"errors"},
    "store": {"errors"},
    "artefacts": {"errors", "geometry", "store"},
    "scans": FOUNDATION,
    "matching": FOUNDATION,
    "boxes": set(),
    "datasets": OFFLINE | {"boxes"},
    "metrics": {"boxes"},
    "placement": set(),
    "augment": set(),
    "augment3d": set(),
    "record": FOUNDATION,
    "stages": OFFLINE,
    "verify": OFFLINE,
    "report": OFFLINE,
    "sparse": FOUNDATION,
    "models": FOUNDATION | {"sparse"},
    "processes": FOUNDATION,
    "signals": FOUNDATION,
    "launch": FOUNDATION,
    "checkpoint": FOUNDATION,
    "weights": TORCH | {"checkpoint"},
    # scans.images decodes colour images
    "pretrain": TORCH
    | {"scans", "weights", "processes", "augment", "augment3d"}
    | {"placement", "record"},
    "resume": TORCH | {"pretrain", "checkpoint", "closure", "processes"},
    "training": TORCH
    | {"pretrain", "checkpoint", "closure", "processes", "record", "resume", "signals"},
    "finetune": TORCH
    | {"datasets", "metrics", "augment", "augment3d", "placement", "weights", "checkpoint"}
    | {"boxes", "closure", "matching", "processes", "record", "signals", "sparse"},
    "evaluate": TORCH | {"pretrain", "checkpoint", "processes"},
    "cli": OFFLINE
    | {"stages", "verify", "report", "training", "evaluate", "weights", "signals", "launch"}
    | {"datasets", "finetune"},
    "__main__": {"cli"},
}
MAY_USE_TORCH = {"sparse", "models", "weights", "pretrain", "processes", "resume", "training"}
MAY_USE_TORCH |= {"checkpoint", "evaluate", "signals", "augment", "record", "finetune"}
TORCH_LIBRARIES = {"torch", "torchvision", "safetensors.torch", "lightning"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module):
    """pri3d.sources.sens belongs to scans."""
    return [*module.split("."), ""][1]


def imported(path):
    """Absolute names of all that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_import_directions(path):
    part = part_of(name_of(path))
    assert part in ALLOWED, f"{path}: say in ALLOWED what {part} may import"
    within = {name for name in imported(path) if name.split(".")[0] == "pri3d"}
    known = {name_of(module) for module in MODULES}
    # `from pri3d.store import publish` names no module of its own.
    modules = {name if name in known else name.rpartition(".")[0] for name in within}
    wrong = {name for name in modules if part_of(name) not in ALLOWED[part] | {part}}
    assert not wrong
    if part == "stages":
        assert not {name for name in modules if part_of(name) == "stages"}, "stages are apart"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_offline_side_does_not_name_torch(path):
    if part_of(name_of(path)) not in MAY_USE_TORCH:
        heads = {tuple(name.split(".")[: n + 1]) for name in imported(path) for n in range(2)}
        assert not {".".join(head) for head in heads} & TORCH_LIBRARIES


def loaded_by(*modules):
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.split())


def test_importing_the_offline_side_loads_no_torch():
    offline = [name_of(path) for path in MODULES if "__main__" not in path.name]
    offline = [name for name in offline if part_of(name) not in MAY_USE_TORCH]
    assert "pri3d.stages.clouds" in offline
    loaded = loaded_by(*offline)
    assert set(offline) <= loaded
    assert not {name.split(".")[0] for name in loaded} & {"torch", "torchvision", "open3d"}


def test_the_command_line_loads_nothing_heavy():
    heavy = {"torch", "open3d", "numba", "numpy", "scipy", "h5py", "matplotlib", "snakemake"}
    assert not {name.split(".")[0] for name in loaded_by("pri3d.cli", "pri3d.code_digest")} & heavy
