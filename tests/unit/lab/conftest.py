"""The node's own modules, loaded from where they are shipped; and a place to find captures."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOTFS = Path(__file__).parents[3] / "images/node/rootfs"
CAPTURES = Path(__file__).parent / "captures"


# The node's modules use plain names; last on the path, so that they hide nothing.
sys.path.append(str(ROOTFS / "usr/local/lib/dspark-lab"))


@pytest.fixture
def capture() -> Callable[[str], str]:
    """The text that a GB10 printed."""
    return lambda name: (CAPTURES / name).read_text(encoding="utf-8")


@pytest.fixture
def node_tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A program of the node as a module, not run."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(name: str) -> ModuleType:
        loader = SourceFileLoader(name.replace("-", "_"), str(ROOTFS / "usr/local/bin" / name))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module

    return load
