"""Old import paths and where they lead: saved recipes, checkpoints, model folders and older code name them.

`moved` is asked wherever a file names a class. `install` lets old imports go on, after every other finder has failed,
so that a package of the user's own is never hidden.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

TOP = ("data", "tokenizers_mod", "tasks", "scripts")  # once top-level packages

FOLDERS = ("data.embedded", "tokenizers_mod.proposers")  # moved with all that is in them

# old module -> new module; old module:name -> new module[:name] of names that left their module
MOVED: dict[str, str] = json.loads((Path(__file__).parent / "moved.json").read_text(encoding="utf-8"))


def moved(path: str) -> str:
    """ "module" or "module:Class" as it is called today; what never moved comes back as it is."""
    module, colon, name = path.partition(":")
    new, _, new_name = MOVED.get(path, MOVED.get(module, "")).partition(":")
    if not new:
        parent = next((folder for folder in FOLDERS if module.startswith(f"{folder}.")), "")
        if not parent and module.split(".")[0] in TOP:
            return moved(f"generalist.{path}")
        new = MOVED[parent] + module.removeprefix(parent) if parent else module
    return f"{new}{colon}{new_name or name}"


def old_name(module: str, name: str) -> Any:
    """What `from module import name` gave before `module` became a room. AttributeError where it gave nothing."""
    package = sys.modules.get(module)
    room = package is not None and "__path__" in vars(package)
    if not name.startswith("__") and not (room and find_spec(f"{module}.{name}")):
        new, _, new_name = moved(f"{module}:{name}").partition(":")
        found = import_module(new)
        if new != module and hasattr(found, new_name):
            return getattr(found, new_name)
    raise AttributeError(f"module '{module}' has no attribute '{name}'")


class OldNames(MetaPathFinder, Loader):
    """Finds old modules: the new one under its old name too, or names gathered from where they went."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = fullname.split(".")[0]
        known = fullname in TOP or fullname in MOVED or (top in TOP and moved(fullname) != fullname)
        if not known or (top in TOP and fullname != top and not self._owns(sys.modules.get(top))):
            return None
        own = None if fullname in TOP else find_spec(moved(fullname))
        if own is None and fullname not in TOP:
            return None
        return ModuleSpec(fullname, self, origin=own.origin if own else None, is_package=fullname in TOP)

    @staticmethod
    def _owns(package: ModuleType | None) -> bool:
        """Whether a top-level package is the stand-in made here, or the folder of this checkout."""
        root = sys.modules[__name__.partition(".")[0]]
        folders = {str(folder) for folder in getattr(package, "__path__", ())}
        return folders <= {f"{home}/{package.__name__}" for home in root.__path__} if package else False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name in TOP:
            return ModuleType(spec.name)
        if not any(old.startswith(f"{spec.name}:") for old in MOVED):
            module = import_module(moved(spec.name))
            spec.loader_state = module.__spec__
            return module
        made = ModuleType(spec.name)
        vars(made)["__getattr__"] = partial(old_name, spec.name)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run; a new module that was lent its old name gets its own specification back."""
        spec = module.__spec__
        if spec is not None and isinstance(spec.loader_state, ModuleSpec):
            module.__spec__ = spec.loader_state

    def get_code(self, fullname: str) -> Any:
        """For `python -m OLD.NAME`."""
        spec = find_spec(moved(fullname))
        assert spec is not None and isinstance(spec.loader, InspectLoader)
        return spec.loader.get_code(moved(fullname))


def install() -> None:
    """Old imports work from here on (idempotent)."""
    if not any(type(finder).__name__ == OldNames.__name__ for finder in sys.meta_path):
        sys.meta_path.append(OldNames())
