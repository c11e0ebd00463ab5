# SPDX-License-Identifier: Apache-2.0
"""The small faults that `make mutants` plants: where a module can hold one, and the module with exactly one of them.

A fault is one changed node: a comparison or an operator turned, `min` for `max`, `and` for `or`, `break` for `continue`, a
`not`, a sign or a statement dropped, a number moved by one, two arguments exchanged. Left out, because nothing a program
does depends on them: texts, what is raised, annotations, log lines, a record's own `frozen`, `slots`, `kw_only`, `order`; the
order of equal arguments and of those of `max`, `hypot` and the like; the size of a cache; how often a text is split of which
only the outer end is kept; which negative size `reshape` gets; indents of JSON; and assertions (`assert`, `strict=True`).
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
LOGGERS = ("log", "logger", "logging")
COMMUTATIVE = {
    "min", "max", "fmin", "fmax", "minimum", "maximum", "hypot", "gcd", "lcm", "add", "multiply", "absdiff", "array_equal",
    "union1d", "intersect1d", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "samefile",
}  # fmt: skip
"""Calls whose first two arguments may stand in either order."""
CACHES = {"lru_cache", "cache"}
WITHOUT_EFFECT = {("indent", None), ("strict", True), ("copy", False), ("maxsize", None), ("stacklevel", None)}
"""(keyword, value or None for any): arguments that can be moved without a change of what a program does."""


@dataclass(frozen=True)
class Fault:
    """One fault of one module.

    number: its place in the module's order. what: the change in words. line: of the changed node. span: first and last line of
    the statement (of a compound one, its head). in_function: whether a call executes it, not importing. text: the changed line,
    stripped. key: the same after unrelated edits.
    """

    number: int
    what: str
    line: int
    span: tuple[int, int]
    in_function: bool
    text: str
    key: str


class Planter(ast.NodeTransformer):
    """Plants the fault of one number, and notes every one it passes."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.passed: list[tuple[str, int]] = []

    def _here(self, node: Any, text: str) -> bool:
        self.passed.append((text, getattr(node, "lineno", 0)))
        return len(self.passed) - 1 == self.wanted

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        new = COMPARE.get(type(node.ops[0]))
        if new and self._here(node, f"{type(node.ops[0]).__name__} → {new.__name__}"):
            node.ops[0] = new()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.left, ast.JoinedStr) or (
            isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        ):
            return node
        new = OPERATE.get(type(node.op))
        if new and self._here(node, f"{type(node.op).__name__} → {new.__name__}"):
            node.op = new()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if self._here(node, "and ↔ or"):
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not | ast.USub) and self._here(node, f"{type(node.op).__name__} dropped"):
            return node.operand
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is bool and self._here(node, f"{node.value} → {not node.value}"):
            return ast.copy_location(ast.Constant(not node.value), node)
        if type(node.value) is int and self._here(node, f"{node.value} → {node.value + 1}"):
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node

    def visit_Continue(self, node: ast.Continue) -> ast.AST:
        return ast.copy_location(ast.Break(), node) if self._here(node, "continue → break") else node

    def visit_Break(self, node: ast.Break) -> ast.AST:
        return ast.copy_location(ast.Continue(), node) if self._here(node, "break → continue") else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _name(node.func) in CACHES:
            return node
        kept = [k for k in node.keywords if isinstance(k.value, ast.Constant) and _without_effect(k.arg, k.value.value)]
        if _name(node.func) == "reshape":
            sizes, node.args = node.args, [a for a in node.args if not _negative(a)]
            node.args = [self.visit(a) for a in node.args]
            rest = iter(node.args)
            node.args = [a if _negative(a) else next(rest) for a in sizes]
            return node
        node.keywords = [k for k in node.keywords if k not in kept]
        self.generic_visit(node)
        node.keywords += kept
        if isinstance(node.func, ast.Name) and node.func.id in SWAPPED:
            new = SWAPPED[node.func.id]
            if self._here(node, f"{node.func.id} → {new}"):
                node.func = ast.copy_location(ast.Name(new, ast.Load()), node.func)
        named = isinstance(node.func, ast.Name | ast.Attribute) and not any(
            isinstance(a, ast.Starred) for a in node.args
        )
        named = named and len(node.args) >= 2 and _name(node.func) not in COMMUTATIVE
        if (
            named
            and ast.dump(node.args[0]) != ast.dump(node.args[1])
            and self._here(node, "first two arguments exchanged")
        ):
            node.args[0], node.args[1] = node.args[1], node.args[0]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant) or _logs(node.value):  # a docstring is no code
            return node
        self.generic_visit(node)
        return ast.copy_location(ast.Pass(), node) if self._here(node, "statement dropped") else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.value = self.visit(node.value) if node.value else None
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        returns, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = returns
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        returns, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = returns
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        decorators, node.decorator_list = node.decorator_list, []
        self.generic_visit(node)
        node.decorator_list = decorators
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if _outer_part(node):
            return node
        self.generic_visit(node)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node


def _name(function: ast.expr) -> str:
    """The last part of what is called."""
    return getattr(function, "attr", getattr(function, "id", ""))


def _without_effect(keyword: str | None, value: object) -> bool:
    return bool(WITHOUT_EFFECT & {(keyword, None), (keyword, value)})


def _negative(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _outer_part(node: ast.Subscript) -> bool:
    """Whether this is text.split(by, n)[0] or text.rsplit(by, n)[-1]."""
    called = node.value
    return (
        isinstance(called, ast.Call)
        and len(called.args) == 2
        and (_name(called.func), ast.unparse(node.slice)) in {("split", "0"), ("rsplit", "-1")}
    )


def _logs(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in LOGGERS
    )


def faults(source: str, name: str) -> list[Fault]:
    """Every fault that a module can hold, in order. `name` goes into the keys."""
    planter, tree = Planter(), ast.parse(source)
    planter.visit(ast.parse(source))
    lines, spans, out = source.splitlines(), _spans(tree), []
    bodies = [
        (n.body[0].lineno - 1, n.end_lineno or 0)
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    met: Counter[tuple[str, str]] = Counter()
    for number, (what, line) in enumerate(planter.passed):
        text = lines[line - 1].strip()
        met[what, text] += 1
        key = hashlib.sha256(f"{name}\n{what}\n{text}\n{met[what, text]}".encode()).hexdigest()[:16]
        span = min((s for s in spans if s[0] <= line <= s[1]), key=lambda s: s[1] - s[0], default=(line, line))
        inside = any(first < line <= last for first, last in bodies)
        out.append(Fault(number, what, line, span, inside, text, key))
    return out


def planted(tree: ast.Module, number: int) -> ast.Module:
    """The module's tree (which it changes) with that fault."""
    return ast.fix_missing_locations(Planter(number).visit(tree))


def plant(source: str, number: int) -> str:
    """The module with that fault."""
    return ast.unparse(planted(ast.parse(source), number))


def _spans(tree: ast.AST) -> list[tuple[int, int]]:
    """First and last line of every statement; of a compound one, its head."""
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            out.append((node.lineno, max(node.lineno, last)))
    return out
