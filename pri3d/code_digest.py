"""Digests of the code behind a rule.

Snakemake notices changes in the text of a rule, but not in the package. Each rule therefore has the
digest of its stage as a parameter: an edited formula reruns the stage, an edited comment does not.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

PACKAGE = "pri3d"
ROOT = Path(__file__).parent.parent

# Not followed: the values of settings are parameters of the rules, and a new setting of one stage
# or a better description must not rerun the others.
EXCLUDED = "pri3d.config"


def code_of_mode(mode: str, module: str = "pri3d.pretrain.train") -> str:
    """Digest of the code that trains a pretraining mode, or does something else with it.

    The module of a mode is imported by name, which `code_digest` does not see.
    """
    return code_digest(module, f"pri3d.pretrain.modes.{mode}")


def code_digest(*modules: str, without: str | None = None) -> str:
    """SHA-256 (hex) of modules and all modules of this package that they import, directly or not.

    Imports inside functions count; names computed at run time are not seen. Comments, layout,
    docstrings and `__version__` do not count.

    Args:
        modules: names of modules of this package.
        without: a package that is not followed, because the rule does not call it.

    Raises:
        ModuleNotFoundError: the package has no such module.
    """
    digest = hashlib.sha256()
    for name in sorted(set().union(*(import_closure(module, without) for module in modules))):
        digest.update(f"{name}\n{_read(name)[1]}\n".encode())
    return digest.hexdigest()


def import_closure(module: str, without: str | None = None) -> set[str]:
    """The module and all modules of this package that it imports, directly or not.

    The packages that contain them are included.

    Raises:
        ModuleNotFoundError: the package has no such module.
    """
    _existing_source(module)
    excluded = tuple(f"{package}." for package in (EXCLUDED, without) if package)
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name not in seen and not f"{name}.".startswith(excluded):
            seen.add(name)
            queue += imports(name)
    return seen


def imports(module: str) -> set[str]:
    """The modules of this package that a module imports directly, and the packages they are in."""
    return _read(module)[0]


def _source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _existing_source(module: str) -> Path:
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(f"{ROOT} has no module {module}")
    return source


@functools.cache
def _read(module: str) -> tuple[set[str], str]:
    """The modules of this package that a module imports, and its source without docstrings.

    The syntax tree is unparsed because its dump differs between Python versions.
    """
    source = _existing_source(module)
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    tree, named = ast.parse(source.read_bytes()), {package}
    # Type checkers read these imports, and programs do not run them.
    tree.body = [statement for statement in tree.body if not _is_for_type_checkers(statement)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            named.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = [statement for statement in node.body if not _is_version(statement)]
    paths = [name.split(".") for name in named if name.split(".")[0] == PACKAGE]
    within = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    return {name for name in within if name != module and _source(name)}, ast.unparse(tree)


def _is_for_type_checkers(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Name)
        and statement.test.id == "TYPE_CHECKING"
    )


def _is_version(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "__version__" for target in statement.targets
    )
