"""Types and array shapes of the functions of some modules, checked at every call in the tests.

The import hook of jaxtyping is not used because it also wraps the functions that numba compiles.
"""

import inspect
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from beartype import beartype
from jaxtyping import jaxtyped

PRETRAIN = tuple(f"pri3d.pretrain.{name}" for name in ("losses", "recall", "depth_loss"))
CHECKED = ("pri3d.geometry", "pri3d.matching", "pri3d.sparse", *PRETRAIN)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for name, value in list(vars(module).items()):
            if (
                inspect.isfunction(value)
                and value.__module__ == module.__name__
                and value.__annotations__
            ):
                setattr(module, name, jaxtyped(typechecker=beartype)(value))


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not f"{fullname}.".startswith(tuple(f"{name}." for name in CHECKED)):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Check the modules in CHECKED that are imported from now on."""
    sys.meta_path.insert(0, _Finder())
