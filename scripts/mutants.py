# SPDX-License-Identifier: Apache-2.0
"""`make mutants`: do the tests notice a small fault? A random sample of faults per package, each planted alone in a copy.

A mutant is one changed node of one module: a comparison or an operator turned, `min` for `max`, `and` for `or`, `break` for
`continue`, a `not` or a statement dropped, a number moved by one, two arguments exchanged. It is killed when a test file
that reaches its module fails. One whose tests take longer than LIMIT_S is undecided and not counted. Tests are chosen by
what they import, nearest first.

Results are kept per mutant in .cache/mutants and reused; the table goes to docs/proof/mutants.md. The sample follows from
the seed alone, so it can be grown: `--count 40` runs the 20 of `--count 20` first.

usage: mutants.py [PACKAGE …] [--count N] [--seed S] [--minutes M]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "mutants"
OUT = ROOT / "docs" / "proof"
PACKAGES = ("core", "usd", "worker", "isaac")
LIMIT_S = 180
MOST_FILES = 3
"""Test files per mutant, nearest first."""
COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Planter(ast.NodeTransformer):
    """Plants the fault of one number, and counts how many there are."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.count, self.told, self.line = wanted, 0, "", 0

    def _here(self, node: Any, text: str) -> bool:
        self.count += 1
        if self.count - 1 != self.wanted:
            return False
        self.told, self.line = text, getattr(node, "lineno", 0)
        return True

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
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in SWAPPED:
            new = SWAPPED[node.func.id]
            if self._here(node, f"{node.func.id} → {new}"):
                node.func = ast.copy_location(ast.Name(new, ast.Load()), node.func)
        named = isinstance(node.func, ast.Name | ast.Attribute) and not any(
            isinstance(a, ast.Starred) for a in node.args
        )
        if named and len(node.args) >= 2 and self._here(node, "first two arguments exchanged"):
            node.args[0], node.args[1] = node.args[1], node.args[0]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant):  # a docstring is no code
            return node
        self.generic_visit(node)
        return ast.copy_location(ast.Pass(), node) if self._here(node, "statement dropped") else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node  # texts

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.value = self.visit(node.value) if node.value else None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node  # texts of errors


def plant(source: str, number: int) -> tuple[str, str, int]:
    """(mutated source, what was changed, line)."""
    planter = Planter(number)
    tree = ast.fix_missing_locations(planter.visit(ast.parse(source)))
    return ast.unparse(tree), planter.told, planter.line


def sites(source: str) -> int:
    planter = Planter()
    planter.visit(ast.parse(source))
    return planter.count


def sample(package: str, seed: int) -> Iterator[tuple[Path, int]]:
    """(module, number of the fault) without end, from the seed alone; modules weigh by their faults."""
    folder = ROOT / f"exts/retake.{package}/retake/{package}"
    files = [p for p in sorted(folder.rglob("*.py")) if not {"tests", "bench.py"} & {*p.parts, p.name}]
    counts = [sites(path.read_text("utf-8")) for path in files]
    rng, seen = random.Random(f"{package}:{seed}"), set()
    while len(seen) < sum(counts):
        path = rng.choices(files, counts)[0]
        chosen = (path, rng.randrange(counts[files.index(path)]))
        if chosen not in seen:
            seen.add(chosen)
            yield chosen


def tests_of(module: Path, package: str) -> list[str]:
    """Test files that reach a module, those that name it first, then those that name its folder."""
    dotted = ".".join(module.relative_to(ROOT / f"exts/retake.{package}").with_suffix("").parts).removesuffix(
        ".__init__"
    )
    parent, stem, ranked = dotted.rpartition(".")[0], dotted.rpartition(".")[2], []
    folder = parent.rpartition(".")[2]
    for path in (*sorted((ROOT / "tests").glob("test_*.py")), *sorted((ROOT / "tests/worker").glob("test_*.py"))):
        text = path.read_text("utf-8")
        rank = (
            0 if re.search(rf"{re.escape(dotted)}\b|from {re.escape(parent)} import [^\n]*\b{stem}\b", text)
            else 1 if stem in path.stem or (folder not in PACKAGES and folder in path.stem)
            else 2 if re.search(rf"{re.escape(parent)}\b", text) else 9
        )  # fmt: skip
        if rank < 9:
            ranked.append((rank, path.stat().st_size, path))
    return [str(path.relative_to(ROOT)) for _, _, path in sorted(ranked)[:MOST_FILES]]


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


def judge(module: Path, number: int, package: str, copy: Path) -> dict[str, Any]:
    """Plant one fault in the copy, run the tests, put the module back."""
    source = module.read_text("utf-8")
    mutated, told, line = plant(source, number)
    digest = hashlib.sha256(f"{module.relative_to(ROOT)}{number}{source}".encode()).hexdigest()[:16]
    kept = CACHE / f"{digest}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    files = tests_of(module, package)
    target = copy / module.relative_to(ROOT)
    started, killed, by = time.monotonic(), False, ""
    command: list[str] = []
    used: list[str] = []
    environment: dict[str, str] = {}
    target.write_text(mutated, "utf-8")
    try:
        for worker in (False, True):
            chosen = [name for name in files if name.startswith("tests/worker") == worker]
            if not chosen or killed:
                continue
            python = ROOT / (".venv-worker" if worker else ".venv") / "bin/python"
            paths = os.pathsep.join(str(copy / f"exts/retake.{name}") for name in (*PACKAGES, "ui", "newton", "lab"))
            environment = {**os.environ, "PYTHONPATH": paths, "HYPOTHESIS_DATABASE_FILE": ""}
            command, used = [str(python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"], chosen
            try:
                done = subprocess.run(
                    [*command, *used],
                    cwd=copy,
                    env=environment,
                    timeout=LIMIT_S,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                killed = done.returncode != 0
                by = (re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M) or [""])[0] if killed else ""
            except subprocess.TimeoutExpired:
                return {"package": package, "module": name_of(module), "line": line, "fault": told, "void": "time"}
    finally:
        target.write_text(source, "utf-8")
    if killed:
        # A test that fails without the fault as well says nothing about it.
        again = subprocess.run(
            [*command, *([by] if by else used)],
            cwd=copy,
            env=environment,
            capture_output=True,
            check=False,
        )
        if again.returncode:
            return {
                "package": package,
                "module": str(module.relative_to(ROOT)),
                "line": line,
                "fault": told,
                "void": by,
            }
    found = {
        "package": package, "module": str(module.relative_to(ROOT)), "line": line, "fault": told, "killed": killed,
        "by": by, "files": files, "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"any of {', '.join(PACKAGES)} (default: all)")
    parser.add_argument("--count", type=int, default=20, help="mutants per package (20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many minutes (0: never)")
    options = parser.parse_args()
    if unknown := set(options.packages) - set(PACKAGES):
        parser.error(f"unknown package {sorted(unknown)[0]!r}; valid: {', '.join(PACKAGES)}")
    copy, until = CACHE / "copy", time.monotonic() + 60 * options.minutes
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("exts", "tests", "config", "data", "scripts", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "constraints.txt"):
        shutil.copy(path, copy)
    rows: list[dict[str, Any]] = []
    packages = options.packages or PACKAGES
    for turn in zip(*(_first(sample(name, options.seed), options.count) for name in packages), strict=True):
        for package, (module, number) in zip(packages, turn, strict=True):
            if options.minutes and time.monotonic() > until:
                break
            row = judge(module, number, package, copy)
            if "void" in row:
                why = (
                    "its tests took too long"
                    if row["void"] == "time"
                    else f"{row['void'] or 'a test'} fails without it, too"
                )
                print(f"void     {row['module']}:{row['line']} {why}", flush=True)
                continue
            rows.append(row)
            mark = "killed  " if row["killed"] else "SURVIVED"
            print(f"{mark} {row['module']}:{row['line']} {row['fault']} ({row['seconds']} s) {row['by']}", flush=True)
    shutil.rmtree(copy, ignore_errors=True)
    OUT.joinpath("mutants.json").write_text(
        json.dumps({"seed": options.seed, "mutants": rows}, indent=2) + "\n", "utf-8"
    )
    OUT.joinpath("mutants.md").write_text(page(rows, options.seed), "utf-8")
    print(page(rows, options.seed))
    return 0


def _first(items: Iterator[tuple[Path, int]], count: int) -> list[tuple[Path, int]]:
    return [item for item, _ in zip(items, range(count), strict=False)]


def page(rows: list[dict[str, Any]], seed: int) -> str:
    lines = [
        "# Proof: mutants", "",
        f"`make mutants` (seed {seed}): small faults planted one at a time; a fault is killed when a test file that reaches its",
        "module fails. Survivors are listed as they are: none was looked at and taken out as equivalent.", "",
        "| package | mutants | killed | share |", "|---|---|---|---|",
    ]  # fmt: skip
    for package in PACKAGES:
        own = [row for row in rows if row["package"] == package]
        if own:
            killed = sum(row["killed"] for row in own)
            lines.append(f"| {package} | {len(own)} | {killed} | {killed / len(own):.0%} |")
    survivors = [row for row in rows if not row["killed"]]
    lines += ["", "| survivor | fault |", "|---|---|"] if survivors else []
    lines += [f"| {row['module']}:{row['line']} | {row['fault']} |" for row in survivors]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
