# SPDX-License-Identifier: Apache-2.0
"""Which tests execute a line, measured once per test file; and the copy of the checkout in which mutants live."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutation.faults import Fault

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "mutants"
COPY = CACHE / "copy"
PACKAGES = ("core", "usd", "worker", "isaac", "ui", "newton", "lab", "loop")
NEAREST = 3
WHOLE = {
    "retake.usd": ("test_survivors", "test_usd_articulation", "test_usd_stages", "test_usd_laws", "test_usd_camera"),
    "retake.isaac": ("test_isaac_settings", "test_isaac_capture", "test_isaac_writer", "test_isaac_bad_input"),
    "retake.worker": ("test_worker_memory", "test_worker_jobs", "test_worker_api", "test_worker_store"),
    "retake.worker.oscar": ("worker/test_oscar_inputs", "worker/test_oscar_pipeline", "worker/test_oscar_speed"),
    "retake.worker.first_frame": ("worker/test_first_frame_parts", "worker/test_first_frame"),
    "retake.worker.tune": ("worker/test_tune_step", "worker/test_tune_trainer", "worker/test_tune_eval"),
    "retake.core.verdicts": ("test_verdicts_bodies", "test_verdicts", "test_verdicts_recorded"),
    "retake.core.painter": ("test_painter_golden", "test_survivors", "test_variants"),
    "retake.core.export": ("test_export_formats", "test_export"),
    "retake.core.ends": ("test_ends_laws", "test_robot_declaration"),
    "retake.core.episode": ("test_episode_io", "test_episode_check"),
}
"""Package -> test files for all of it, looked at after those that name a module."""
TRACE_LIMIT_S, MOST_S = 60, 30
"""Time after which no further test of a file is measured, and its tests' own time per mutant (shortest first) beyond which no
more are added."""
OPTIONS = ["-p", "no:cacheprovider", "--hypothesis-seed=0"]
SEED = {"RETAKE_TEST_SEED": "1"}


@dataclass(frozen=True)
class Trace:
    """What one test file executes. tests: node id -> outcome, seconds, shared fixtures. lines: module -> line -> contexts."""

    tests: dict[str, dict[str, Any]]
    lines: dict[str, dict[str, list[str]]]

    def reaching(self, module: str, fault: Fault) -> list[str]:
        """Tests that passed and execute the fault's statement, or the module at all where importing executes it."""
        lines = self.lines.get(module, {})
        met: set[str] = set()
        for line in range(fault.span[0], fault.span[1] + 1):
            met |= set(lines.get(str(line), ()))
        if met and not met - {""}:
            met = {context for contexts in lines.values() for context in contexts}
        met.discard("")
        return [
            name for name, test in self.tests.items()
            if test["outcome"] == "passed" and (name in met or met & set(test["fixtures"]))
        ]  # fmt: skip


def make_copy() -> None:
    """The checkout as it is now, without what git ignores."""
    CACHE.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("exts", "tests", "config", "data", "scripts", "docs", "examples"):
        shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "constraints.txt"):
        shutil.copy(path, COPY)


def tests_of(module: Path, package: str) -> list[str]:
    """Test files that reach a module: three that name it or its folder, those of its package as a whole, then further ones
    that name it or reach it through a helper of the tests (a survivor costs them all)."""
    dotted = ".".join(module.relative_to(ROOT / f"exts/retake.{package}").with_suffix("").parts)
    dotted = dotted.removesuffix(".__init__")
    parent, _, stem = dotted.rpartition(".")
    named = re.compile(rf"{re.escape(dotted)}\b|from {re.escape(parent)} import [^\n]*\b{stem}\b")
    helpers = {p.stem for p in (ROOT / "tests").rglob("*.py") if named.search(p.read_text("utf-8"))}
    folder, ranked = parent.rpartition(".")[2], []
    for path in (*sorted((ROOT / "tests").glob("test_*.py")), *sorted((ROOT / "tests/worker").glob("test_*.py"))):
        text = path.read_text("utf-8")
        if stem in path.stem or named.search(text):
            ranked.append((stem not in path.stem, path.stat().st_size, path))
        elif folder not in PACKAGES and folder in path.stem:
            ranked.append((2, path.stat().st_size, path))
        elif helpers & set(re.findall(r"^(?:from|import) (\w+)", text, re.M)):
            ranked.append((3, path.stat().st_size, path))
    near, helped = ([p for rank, _, p in sorted(ranked) if (rank == 3) == through] for through in (False, True))
    whole = [f"tests/{name}.py" for name in WHOLE.get(dotted.rpartition(".")[0], WHOLE.get(f"retake.{package}", ()))]
    files = [*(str(p.relative_to(ROOT)) for p in near[:NEAREST]), *(name for name in whole if (ROOT / name).is_file())]
    return list(
        dict.fromkeys([*files, *(str(p.relative_to(ROOT)) for p in (*near[NEAREST : 3 * NEAREST], *helped[:NEAREST]))])
    )


def trace_of(file: str, module: Path) -> Trace:
    """What the test file executes, measured unless it is known for this text of the file and of the module."""
    kept = CACHE / "traces" / f"{file.replace('/', '.')}.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    name = str(module.relative_to(ROOT / "exts"))
    if known.get("file") != _hash(ROOT / file) or known["sources"].get(name) != _hash(module):
        print(f"  measuring {file}", flush=True)
        raw = CACHE / "trace.json"
        raw.unlink(missing_ok=True)
        command = ["scripts/mutation/traced.py", str(COPY / "exts"), str(raw), str(TRACE_LIMIT_S), file]
        run(file, command, 5 * TRACE_LIMIT_S)
        found = json.loads(raw.read_text()) if raw.is_file() else {"tests": {}, "lines": {}}
        sources = {str(p.relative_to(ROOT / "exts")): _hash(p) for p in (ROOT / "exts").glob("retake.*/retake/**/*.py")}
        known = {"file": _hash(ROOT / file), "sources": sources, "tests": found["tests"], "lines": found["lines"]}
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(known))
    return Trace(known["tests"], known["lines"])


def chosen_tests(file: str, module: Path, fault: Fault) -> list[tuple[str, float]]:
    """(node id, seconds) of the tests of one file to run, shortest first."""
    trace = trace_of(file, module)
    names = trace.reaching(str(module.relative_to(ROOT / "exts")), fault)
    chosen: list[tuple[str, float]] = []
    for seconds, name in sorted((trace.tests[name]["seconds"], name) for name in names):
        if chosen and sum(s for _, s in chosen) + seconds > MOST_S:
            break
        chosen.append((name, seconds))
    return chosen


def run(file: str, command: list[str], limit_s: float) -> tuple[int | None, str]:
    """(exit code or None after limit_s, stdout) of a Python command in the copy, with nothing of it left running."""
    python = ROOT / (".venv-worker" if file.startswith("tests/worker") else ".venv") / "bin/python"
    home = CACHE / "home"
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ, **SEED, "PYTHONPATH": os.pathsep.join(str(COPY / f"exts/retake.{name}") for name in PACKAGES),
        "HOME": str(home), "WARP_CACHE_PATH": str(CACHE / "warp"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [python, *command, *OPTIONS], cwd=COPY, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=sys.platform != "win32",
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=limit_s)
        return process.returncode, text
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if sys.platform == "win32":
            process.kill()
        else:
            _kill_group(process.pid)
        process.wait()


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
