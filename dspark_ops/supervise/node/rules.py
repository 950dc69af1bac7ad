"""The container rules that the Ansible module has too: at the top of the packed file, or in the tree of playbooks."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_NAME = "dspark_container_rules"
_IN_TREE = f"playbooks/module_utils/{_NAME}.py"


def _load() -> ModuleType:
    try:
        return importlib.import_module(_NAME)
    except ModuleNotFoundError:
        pass
    package = Path(__file__).resolve().parents[2]
    for base in (package / "data", package.parent):
        path = base / _IN_TREE
        if path.is_file():
            spec = importlib.util.spec_from_file_location(_NAME, path)
            if spec is None or spec.loader is None:
                break
            module = importlib.util.module_from_spec(spec)
            # Dataclasses look their module up while they are made.
            sys.modules[_NAME] = module
            spec.loader.exec_module(module)
            return module
    raise ModuleNotFoundError(f"{_NAME} is neither in the packed file nor at {_IN_TREE}")


rules = _load()
