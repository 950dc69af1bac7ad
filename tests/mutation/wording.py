"""What of a function is wording: text for a person, on which no status hangs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

#: Calls whose arguments from this position on are wording.
_ARGUMENTS = {
    "ok": 0,
    "warn": 0,
    "fail": 0,
    "judge": 1,
    "need": 1,
    "NotApplicableError": 0,
    "FactMissingError": 0,
}
_NOT_CODE = frozenset({"annotation", "returns", "ctx", "op", "ops", "decorator_list", "type_params"})


def called(node: ast.expr) -> str:
    """The name of a called function or method, or an empty one."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def can_end_the_rule(node: ast.AST) -> bool:
    """It holds a need(): that may end the rule as unknown, also within a text."""
    return any(called(n) == "need" for n in ast.walk(node) if isinstance(n, ast.expr))


def code_nodes(tree: ast.FunctionDef, says_text: Callable[[str], bool] = lambda _: False) -> set[int]:
    """The ids of all nodes of a function that are neither wording, nor annotation, nor documentation.

    says_text: whether a called function of that name returns text; its result, appended to a list, is wording.
    """
    texts = _assigned_only_text(tree)
    silent: set[str] = _local_names(tree)
    while True:
        code = {id(node) for node in _code(tree, frozenset(silent), texts, says_text)}
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not _stores(n) and id(n) in code}
        if not used & silent:
            return code
        silent -= used


def _code(
    node: ast.AST, silent: frozenset[str], texts: frozenset[str], says_text: Callable[[str], bool]
) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        if name in _NOT_CODE:
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(0, value)]:
            if isinstance(child, ast.AST) and not _is_wording(node, name, i, child, silent, texts, says_text):
                yield from _code(child, silent, texts, says_text)


def _is_wording(
    parent: ast.AST,
    name: str,
    index: int,
    child: ast.AST,
    silent: frozenset[str],
    texts: frozenset[str],
    says_text: Callable[[str], bool],
) -> bool:
    if isinstance(child, ast.JoinedStr | ast.arguments):
        return True
    if isinstance(parent, ast.Expr) and isinstance(child, ast.Constant):
        return True
    if isinstance(parent, ast.Assign | ast.AnnAssign | ast.AugAssign) and name == "value":
        targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
        return all(isinstance(t, ast.Name) and t.id in silent for t in targets) and not can_end_the_rule(child)
    if isinstance(parent, ast.keyword) and parent.arg == "strict":
        return True  # zip() of what is of one length anyway
    if isinstance(parent, ast.List):
        return isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and says_text(child.func.id)
    if not isinstance(parent, ast.Call) or name == "func":
        return False
    first = _ARGUMENTS.get(called(parent))
    if first is not None and (name == "keywords" or index >= first):
        return not can_end_the_rule(child)
    if called(parent) == "append":
        return (isinstance(child, ast.Name) and child.id in texts) or (
            isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and says_text(child.func.id)
        )
    return False


def _local_names(tree: ast.FunctionDef) -> set[str]:
    """The names that are only ever assigned to on their own: `x = ...`."""
    plain, other = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            plain |= {t.id for t in targets if isinstance(t, ast.Name)}
            other |= {n.id for t in targets if not isinstance(t, ast.Name) for n in ast.walk(t) if _stores(n)}  # type: ignore[attr-defined]
        elif isinstance(node, ast.For | ast.comprehension | ast.NamedExpr):
            other |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
    return plain - other


def _assigned_only_text(tree: ast.FunctionDef) -> frozenset[str]:
    """Names whose every value is built as text."""
    yes: set[str] = set()
    no: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and node.value is not None:
                    (yes if _is_text(node.value) else no).add(target.id)
    return frozenset(yes - no)


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    return isinstance(node, ast.JoinedStr) or called(node) == "join"


def _stores(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
