"""The mutants of one function: one small change each. Wording is left alone, since no status hangs on it."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from tests.mutation import edits, renamed
from tests.mutation.reached import Source
from tests.mutation.wording import called, can_end_the_rule

_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SHIFTED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_SWAPS = {"ok": ("fail",), "fail": ("ok", "warn"), "warn": ("ok", "fail")}
_EXTRA = "mutated"

Place = tuple[str | int, ...]
#: Its kind, the change (in place, or what takes the place), and whether it shows only where a failure can be one.
Changed = tuple[str, Callable[[Any], Any], bool]


@dataclass(frozen=True)
class Mutant:
    """One changed function. line: in its file. needs_required: the change shows only where a failure can be one."""

    kind: str
    line: int
    text: str
    code: CodeType
    needs_required: bool = False
    renames: bool = False


def mutants(source: Source, *, is_rule: bool) -> Iterator[Mutant]:
    """Every mutant of a function, each once, in the order of the source. A rule that yields problems ends early with
    none of those that follow.
    """
    is_rule = is_rule and not any(isinstance(n, ast.Yield | ast.YieldFrom) for n in ast.walk(source.tree))
    original = ast.unparse(source.tree)
    known = {original}
    for place in _places(source.tree, source.code):
        for kind, change, required in _changes(_at(source.tree, place), source, is_rule=is_rule):
            if kind == "early return" and _ends_alike(_rest(source.tree, place), is_rule):
                continue
            tree = copy.deepcopy(source.tree)
            node = _at(tree, place)
            line = source.line + getattr(node, "lineno", 1) - 1
            before = _short(node)
            replacement = change(node)
            if replacement is not node:
                _put(tree, place, replacement)
            text = ast.unparse(tree)
            if text in known:
                continue
            known.add(text)
            shown = (
                f"{kind}: {before} -> {_short(replacement)}" if kind != "early return" else f"{kind} before {before}"
            )
            yield Mutant(kind, line, shown, _compile(tree, source), required, kind.startswith("fact"))


def _changes(node: Any, source: Source, *, is_rule: bool) -> Iterator[Changed]:
    """What can be changed at a node."""
    for kind, operator in _OPERATORS.items():
        if isinstance(node, kind):
            yield from operator(node)
    if isinstance(node, ast.Constant):
        yield from (("constant moved", edits.constant(value), False) for value in _moved(node.value))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (("constant moved", edits.constant(value), False) for value in _moved(source.known(node.id)))
    elif isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef) and not _is_documentation(node):
        yield "early return", _early(is_rule), False


def _is_documentation(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _comparison(node: ast.Compare) -> Iterator[Changed]:
    for i, op in enumerate(node.ops):
        yield "comparison negated", edits.set_op(i, _NEGATED[type(op)]), False
        if type(op) in _SHIFTED:
            yield "comparison shifted", edits.set_op(i, _SHIFTED[type(op)]), False
    for i, side in enumerate([node.left, *node.comparators]):
        yield from ((kind, edits.in_side(i, change), False) for kind, change in _strings(side))


def _boolean(_node: ast.BoolOp) -> Iterator[Changed]:
    yield "boolean operator swapped", edits.swap_bool, False


def _not(node: ast.UnaryOp) -> Iterator[Changed]:
    if isinstance(node.op, ast.Not):
        yield "not removed", lambda n: n.operand, False


def _test(node: ast.If | ast.IfExp | ast.While) -> Iterator[Changed]:
    if not _negates_anyway(node.test):
        yield "not added", edits.negate_test, False


def _filters(node: ast.comprehension) -> Iterator[Changed]:
    for i, test in enumerate(node.ifs):
        if not _negates_anyway(test):
            yield "not added", edits.negate_filter(i), False


def _fact(node: ast.Attribute) -> Iterator[Changed]:
    if isinstance(node.ctx, ast.Load) and node.attr in renamed.fact_names():
        yield "fact missing", edits.read_by(renamed.MISSING), False
        yield "fact renamed to its sibling", edits.read_by(renamed.SIBLING), False


def _negates_anyway(test: ast.expr) -> bool:
    """Another operator negates it."""
    return (isinstance(test, ast.Compare) and len(test.ops) == 1) or (
        isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    )


def _calls(node: ast.Call) -> Iterator[Changed]:
    name = called(node)
    if isinstance(node.func, ast.Name):
        for other in _SWAPS.get(name, ()):
            yield "status swapped", edits.call(other), {name, other} == {"warn", "fail"}
        if name == "judge" and node.args:
            yield "status swapped", edits.first_argument(ast.Tuple([], ast.Load())), False
            yield "status swapped", edits.first_argument(ast.Tuple([ast.Constant(_EXTRA)], ast.Load())), False
        if name in ("any", "all"):
            yield "boolean operator swapped", edits.call("all" if name == "any" else "any"), False
    elif name in ("get", "startswith", "endswith", "count") and node.args:
        yield from ((k, edits.argument(c), False) for k, c in _strings(node.args[0]))


def _early(is_rule: bool) -> Callable[[Any], Any]:
    """A return before the statement: ok from a rule, None from what a rule calls."""
    given: ast.expr = ast.Constant(None)
    if is_rule:
        given = ast.Call(ast.Name(edits.OK, ast.Load()), [ast.Constant("early")], [])
    return lambda _: ast.Return(given)


def _rest(tree: ast.AST, place: Place) -> list[ast.stmt]:
    """The statement at a place and those after it in its block; empty where there is no block."""
    block = _at(tree, place[:-1])
    return block[place[-1] :] if isinstance(block, list) and isinstance(place[-1], int) else []


def _ends_alike(rest: list[ast.stmt], is_rule: bool) -> bool:
    """Returning before these makes no difference: they only prepare the same return."""
    if not rest or any(can_end_the_rule(s) for s in rest):
        return not rest
    *before, last = rest
    if not all(isinstance(s, ast.Assign | ast.AnnAssign) for s in before):
        return False
    if isinstance(last, ast.Expr):
        return isinstance(last.value, ast.Constant)
    if not isinstance(last, ast.Return):
        return isinstance(last, ast.Break | ast.Pass) and len(rest) == 1
    value = last.value
    if is_rule:
        return value is not None and called(value) == "ok"
    return value is None or (isinstance(value, ast.Constant) and not value.value)


def _keys(node: ast.Subscript) -> Iterator[Changed]:
    owner = node.value
    if isinstance(owner, ast.Attribute) and owner.attr == "limits":
        return  # a threshold of no such name is a KeyError: nothing to find out
    for kind, change in _strings(node.slice):
        yield kind, edits.subscript(change), False


def _strings(node: ast.expr) -> Iterator[tuple[str, Callable[[ast.expr], ast.expr]]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield "text changed", edits.constant(node.value + "~")
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for i, item in enumerate(node.elts):
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                yield "text changed", edits.element(i, item.value + "~")


def _moved(value: Any) -> list[Any]:
    """A number one unit and a tenth to either side; the other truth value; nothing else."""
    if isinstance(value, bool):
        return [not value]
    if not isinstance(value, int | float):
        return []
    return moved_number(value)


def moved_number(value: float) -> list[float]:
    """One unit of the last digit and a tenth of the value, both ways, without repeats."""
    if isinstance(value, int):
        steps: list[float] = [1, round(abs(value) / 10)]
    else:
        digits = len(repr(value).partition(".")[2]) if "e" not in repr(value) and not value.is_integer() else 0
        steps = [10.0**-digits, abs(value) / 10]
    found = [value + sign * step for step in steps if step for sign in (1, -1)]
    return list(dict.fromkeys(round(v, 12) if isinstance(v, float) else v for v in found))


def _places(tree: ast.AST, code: frozenset[int], here: Place = ()) -> Iterator[Place]:
    """The places of all nodes whose value can decide something."""
    for name, value in ast.iter_fields(tree):
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and id(child) in code:
                place = (*here, name) if i is None else (*here, name, i)
                yield place
                yield from _places(child, code, place)


def _at(tree: Any, place: Place) -> Any:
    for word in place:
        tree = tree[word] if isinstance(word, int) else getattr(tree, word)
    return tree


def _put(tree: Any, place: Place, node: Any) -> None:
    parent, last = _at(tree, place[:-1]), place[-1]
    if isinstance(last, int):
        if isinstance(node, ast.Return) and isinstance(parent[last], ast.stmt):
            parent.insert(last, node)
        else:
            parent[last] = node
    else:
        setattr(parent, last, node)


def _compile(tree: ast.FunctionDef, source: Source) -> CodeType:
    """The code of a changed function, with the free names of the original."""
    free = source.function.__code__.co_freevars
    outer = ast.parse(f"def outer({', '.join(free)}): pass").body[0]
    outer.body = [tree]  # type: ignore[attr-defined]
    future = ast.parse("from __future__ import annotations").body
    module = ast.fix_missing_locations(ast.Module(body=[*future, outer], type_ignores=[]))
    code = compile(module, f"<mutant of {source.name}>", "exec")
    (within,) = [c for c in code.co_consts if isinstance(c, CodeType)]
    return next(c for c in within.co_consts if isinstance(c, CodeType) and c.co_name == tree.name)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else text[:87] + "..."


_OPERATORS: dict[Any, Callable[[Any], Iterator[Changed]]] = {
    ast.Compare: _comparison,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _not,
    (ast.If, ast.IfExp, ast.While): _test,
    ast.comprehension: _filters,
    ast.Attribute: _fact,
    ast.Subscript: _keys,
    ast.Call: _calls,
}
