"""Guards: functions of the release that this plugin rests on, held to their source and signature.

The files are read, not imported: a process that never builds the model does not pay for it, and a function is judged
before anything could have been bound to its name. Where the module is loaded already, the loaded function must be the
one in the file.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import vllm

RELEASE = "0.32.0"


class ForeignReleaseError(RuntimeError):
    """The vLLM below is not the one that this plugin was written on."""


@dataclass(frozen=True)
class Guard:
    """module: dotted, below vllm. name: function or Class.function. sha256: of the def's own text."""

    module: str
    name: str
    signature: str
    sha256: str

    def differences(self, root: Path) -> list[str]:
        """What differs from the release, in words; nothing when it is the very function."""
        where = f"vllm.{self.module}.{self.name}"
        path = root.joinpath(*self.module.split(".")).with_suffix(".py")
        try:
            text = path.read_text(encoding="utf-8")
            found = _definition(ast.parse(text), self.name)
        except (OSError, SyntaxError, UnicodeDecodeError) as unreadable:
            return [f"{where}: {path} cannot be read ({unreadable})"]
        if found is None:
            return [f"{where}: observed no such function, expected one"]
        told = []
        signature = ast.unparse(found.args)
        if signature != self.signature:
            told.append(f"{where}: signature observed ({signature}), expected ({self.signature})")
        digest = hashlib.sha256((ast.get_source_segment(text, found) or "").encode()).hexdigest()
        if digest != self.sha256:
            told.append(f"{where}: source observed sha256 {digest[:12]}, expected {self.sha256[:12]}")
        return told or self._loaded_differences(where, path, found)

    def _loaded_differences(self, where: str, path: Path, found: ast.FunctionDef) -> list[str]:
        current: object = sys.modules.get(f"vllm.{self.module}")
        if current is None:
            return []
        for part in self.name.split("."):
            current = inspect.getattr_static(current, part, None)
        if isinstance(current, (staticmethod, classmethod)):
            current = current.__func__
        if not isinstance(current, FunctionType):
            return [f"{where}: the loaded object is {type(current).__name__}, expected the release's function"]
        if Path(current.__code__.co_filename).resolve() != path.resolve():
            return [f"{where}: bound to a function of {current.__code__.co_filename}, expected {path}"]
        names = [arg.arg for arg in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]
        loaded = list(inspect.signature(current).parameters)
        return [] if loaded == names else [f"{where}: loaded with the parameters {loaded}, expected {names}"]


def require_release(guards: Iterable[Guard]) -> None:
    """
    Raises:
        ForeignReleaseError: another release, or a guarded function that is not the release's; everything is named.
    """
    told = []
    version = vllm.__version__
    # `+cpu` and the like name a build of the same sources.
    if version.split("+")[0] != RELEASE:
        told.append(f"vLLM observed {version}, expected {RELEASE}")
    root = Path(vllm.__path__[0])
    for guard in guards:
        told += guard.differences(root)
    if told:
        raise ForeignReleaseError("dspark: this is not the vLLM that the plugin was written on: " + "; ".join(told))


def _definition(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    body: list[ast.stmt] = tree.body
    found: ast.stmt | None = None
    for part in name.split("."):
        found = next((s for s in body if isinstance(s, (ast.ClassDef, ast.FunctionDef)) and s.name == part), None)
        if found is None:
            return None
        body = found.body
    return found if isinstance(found, ast.FunctionDef) else None
