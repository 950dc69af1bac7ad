"""The changes themselves: each takes a node and gives what stands there afterwards."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

#: The answers of a rule, under names that every module of rules can be given.
OK, WARN, FAIL = "__mutant_ok__", "__mutant_warn__", "__mutant_fail__"
_OWN = {"ok": OK, "warn": WARN, "fail": FAIL}


def set_op(index: int, kind: type[ast.cmpop]) -> Callable[[Any], Any]:
    def change(node: ast.Compare) -> ast.Compare:
        node.ops[index] = kind()
        return node

    return change


def in_side(index: int, inner: Callable[[ast.expr], ast.expr]) -> Callable[[Any], Any]:
    def change(node: ast.Compare) -> ast.Compare:
        if index == 0:
            node.left = inner(node.left)
        else:
            node.comparators[index - 1] = inner(node.comparators[index - 1])
        return node

    return change


def swap_bool(node: ast.BoolOp) -> ast.BoolOp:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    return node


def negate_test(node: Any) -> Any:
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


def negate_filter(index: int) -> Callable[[Any], Any]:
    def change(node: ast.comprehension) -> ast.comprehension:
        node.ifs[index] = ast.UnaryOp(ast.Not(), node.ifs[index])
        return node

    return change


def constant(value: Any) -> Callable[[Any], Any]:
    return lambda _: ast.Constant(value)


def element(index: int, value: str) -> Callable[[Any], Any]:
    def change(node: Any) -> Any:
        node.elts[index] = ast.Constant(value)
        return node

    return change


def read_by(reader: str) -> Callable[[Any], Any]:
    return lambda node: ast.Call(ast.Name(reader, ast.Load()), [node.value, ast.Constant(node.attr)], [])


def subscript(inner: Callable[[ast.expr], ast.expr]) -> Callable[[Any], Any]:
    def change(node: ast.Subscript) -> ast.Subscript:
        node.slice = inner(node.slice)
        return node

    return change


def argument(inner: Callable[[ast.expr], ast.expr]) -> Callable[[Any], Any]:
    def change(node: ast.Call) -> ast.Call:
        node.args[0] = inner(node.args[0])
        return node

    return change


def call(name: str) -> Callable[[Any], Any]:
    def change(node: ast.Call) -> ast.Call:
        node.func = ast.Name(_OWN.get(name, name), ast.Load())
        if name == "ok":
            node.args, node.keywords = node.args[:1], []
        elif name in ("warn", "fail"):
            node.args = [*node.args, ast.Constant("mutated")][:2]
            node.keywords = []
        return node

    return change


def first_argument(value: ast.expr) -> Callable[[Any], Any]:
    def change(node: ast.Call) -> ast.Call:
        node.args[0] = value
        return node

    return change
