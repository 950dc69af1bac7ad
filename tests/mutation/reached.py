"""Which functions of the rules package decide a check: its rule, and what that calls there, transitively."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.mutation.wording import code_nodes

PACKAGE = "dspark_ops.doctor.rules"


@dataclass(frozen=True)
class Source:
    """One function as written. line: of its first line in the file, decorators counted. code: the ids of the nodes
    that are not wording.
    """

    function: FunctionType
    tree: ast.FunctionDef
    file: str
    line: int
    code: frozenset[int]

    @property
    def name(self) -> str:
        return self.function.__name__

    def known(self, name: str) -> Any:
        """What a name that is not local stands for, or None."""
        cells = dict(zip(self.function.__code__.co_freevars, self.function.__closure__ or (), strict=True))
        return cells[name].cell_contents if name in cells else self.function.__globals__.get(name)


@cache
def source_of(function: FunctionType) -> Source | None:
    """The syntax tree of a function, alone in its module, without decorators; a lambda as a function that returns.

    None: several lambdas are in one line, so that this one cannot be told.
    """
    lines, first = inspect.getsourcelines(function)
    tree: ast.FunctionDef | None
    if function.__name__ == "<lambda>":
        tree, first = _of_lambda(function), 1
    else:
        found = ast.parse(textwrap.dedent("".join(lines))).body[0]
        tree = found if isinstance(found, ast.FunctionDef) else None
    if tree is None:
        return None
    tree.decorator_list = []

    def says_text(name: str) -> bool:
        return getattr(function.__globals__.get(name), "__annotations__", {}).get("return") == "str"

    file = Path(inspect.getfile(function)).name
    return Source(function, tree, file, first, frozenset(code_nodes(tree, says_text)))


def _of_lambda(function: FunctionType) -> ast.FunctionDef | None:
    line = function.__code__.co_firstlineno
    module = ast.parse(Path(inspect.getfile(function)).read_text(encoding="utf-8"))
    there = [node for node in ast.walk(module) if isinstance(node, ast.Lambda) and node.lineno == line]
    if len(there) != 1:
        return None
    tree = ast.FunctionDef("of_the_table", there[0].args, [ast.Return(there[0].body, lineno=line)], [])
    return ast.copy_location(tree, there[0])


def functions_of(rule: Callable[..., object], package: str = PACKAGE) -> list[Source]:
    """The rule, then every function of `package` that it calls for more than wording, in the order of first use.

    A table of functions counts as a call of each.
    """
    found: dict[FunctionType, Source] = {}

    def visit(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                visit(item)
        function = inspect.unwrap(value) if callable(value) else None
        if not isinstance(function, FunctionType) or function in found or not function.__module__.startswith(package):
            return
        source = source_of(function)
        if source is None:
            return
        found[function] = source
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) in source.code:
                visit(source.known(node.id))

    visit(rule)
    return list(found.values())
