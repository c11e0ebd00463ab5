# SPDX-License-Identifier: Apache-2.0
"""Which tests execute a line, measured once per test file; and the copy of the checkout in which mutants live."""

from __future__ import annotations

import atexit
import filecmp
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mutation.faults import Fault

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "mutants"
COPY = CACHE / "copy"
PACKAGES = ("core", "usd", "worker", "isaac", "ui", "newton", "lab", "loop")
SITE = COPY / "scripts/mutation/site"
NEAREST = 3
WHOLE = {
    "retake.usd": (
        "test_usd_golden",
        "test_survivors",
        "test_usd_edges",
        "test_usd_joints",
        "test_usd_articulation",
        "test_usd_stages",
        "test_usd_laws",
        "test_usd_camera",
    ),
    "retake.isaac": (
        "test_parts_of_isaac",
        "test_isaac_alone",
        "test_isaac_edges",
        "test_isaac_limits",
        "test_isaac_settings",
        "test_isaac_capture",
        "test_isaac_writer",
        "test_isaac_bad_input",
    ),
    "retake.worker": (
        "test_command_lines",
        "test_worker_dispatcher",
        "test_worker_memory",
        "test_worker_jobs",
        "test_worker_api",
        "test_worker_store",
    ),
    "retake.worker.oscar": (
        "worker/test_worker_numbers",
        "worker/test_worker_command_lines",
        "worker/test_oscar_inputs",
        "worker/test_oscar_pipeline",
        "worker/test_oscar_speed",
    ),
    "retake.worker.first_frame": ("worker/test_first_frame_parts", "worker/test_first_frame"),
    "retake.worker.tune": ("worker/test_tune_step", "worker/test_tune_trainer", "worker/test_tune_eval"),
    "retake.core.verdicts": (
        "test_verdicts_parts_golden",
        "test_verdicts_golden",
        "test_verdicts_bodies",
        "test_verdicts",
        "test_verdicts_recorded",
    ),
    "retake.core.painter": (
        "test_painter_parts_golden",
        "test_painter_sets_golden",
        "test_arrow_golden",
        "test_painter_scenes_golden",
        "test_painter_golden",
        "test_survivors",
        "test_variants",
    ),
    "retake.core.export": ("test_export_golden", "test_export_formats", "test_export"),
    "retake.core.variants": (
        "test_variants_golden",
        "test_arrow_golden",
        "test_painter_golden",
        "test_variants",
        "test_variants_gate",
    ),
    "retake.core.importers": ("test_arrow_golden", "test_import_lerobot", "test_import_recordings"),
    "retake.core.skeleton": ("test_arrow_golden", "test_skeleton", "test_skeleton_episode"),
    "retake.core.gap": ("test_analysis_golden", "test_arrow_golden", "test_gap"),
    "retake.core.robustness": ("test_analysis_golden", "test_arrow_golden", "test_robustness"),
    "retake.core": ("test_arrow_golden", "test_command_lines", "test_run_reader", "test_pipeline"),
    "retake.core.ends": ("test_ends_golden", "test_arrow_golden", "test_ends_laws", "test_robot_declaration"),
    "retake.core.episode": ("test_arrow_golden", "test_episode_io", "test_episode_check"),
}
"""Package -> test files for all of it, looked at after those that name a module."""
ANY = ("test_survivors", "test_defaults")
"""Tests of small faults in any package."""
MOST_S, MOST_ALL_S, MOST_UNMEASURED_S = 12, 20, 45
"""Processor time of one file's tests per mutant (shortest first), of all, beyond which no more are added, and of all where no
file was measured: each is then taken for six seconds, which few take."""
TRACE_LIMIT_S, COLLECT_LIMIT_S, LONGEST_S = 900, 1800, 20_000
OPTIONS = ["-p", "no:cacheprovider", "--hypothesis-seed=0"]
SEED = {"RETAKE_TEST_SEED": "1"}


@dataclass(frozen=True)
class Trace:
    """What one test file executes. tests: node id -> outcome, seconds, shared fixtures. lines: module -> line -> contexts."""

    tests: dict[str, dict[str, Any]]
    lines: dict[str, dict[str, list[str]]]

    def enters(self, module: Path) -> bool:
        """Whether a test executes any line of the module, beyond what importing does."""
        contexts = self.lines.get(str(module.relative_to(ROOT / "exts")), {}).values()
        return any(any(own) for own in contexts)

    def reaching(self, module: str, fault: Fault) -> list[str]:
        """Tests that passed and execute the fault's statement, or the module at all where importing executes it."""
        lines = self.lines.get(module, {})
        met: set[str] = set()
        for line in range(fault.span[0], fault.span[1] + 1):
            met |= set(lines.get(str(line), ()))
        if not fault.in_function:
            met = {context for contexts in lines.values() for context in contexts}
        met.discard("")
        return [
            name for name, test in self.tests.items()
            if test["outcome"] == "passed" and (name in met or met & set(test["fixtures"]))
        ]  # fmt: skip


def make_copy() -> None:
    """The checkout as it is now, without what git ignores; files that are the same stay, with what is compiled of them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    ours = set()
    for name in ("exts", "tests", "config", "data", "scripts", "docs", "examples"):
        ours |= {
            p.relative_to(ROOT) for p in (ROOT / name).rglob("*") if p.is_file() and p.parent.name != "__pycache__"
        }
    ours |= {p.relative_to(ROOT) for p in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"))} | {
        Path("Makefile"),
        Path("constraints.txt"),
    }
    for path in COPY.rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__" and path.relative_to(COPY) not in ours:
            path.unlink()
    for path in ours:
        if not (COPY / path).is_file() or not filecmp.cmp(ROOT / path, COPY / path, shallow=False):
            (COPY / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, COPY / path)


@cache
def _tests() -> tuple[tuple[Path, str], ...]:
    """Test files of the copy and their texts, and helpers'."""
    return tuple((path, path.read_text("utf-8")) for path in sorted((COPY / "tests").rglob("*.py")))


@cache
def tests_of(module: Path, package: str) -> tuple[str, ...]:
    """Test files that reach a module: three that name it or its folder, those of its package as a whole, then every other one
    that was measured and executes a function of it."""
    dotted = ".".join(module.relative_to(ROOT / f"exts/retake.{package}").with_suffix("").parts)
    dotted = dotted.removesuffix(".__init__")
    parent, _, stem = dotted.rpartition(".")
    named = re.compile(rf"{re.escape(dotted)}\b|from {re.escape(parent)} import [^\n]*\b{stem}\b")
    helpers = {path.stem for path, text in _tests() if named.search(text)}
    folder, ranked = parent.rpartition(".")[2], []
    for path, text in _tests():
        if not path.name.startswith("test_") or path.parent.name not in ("tests", "worker"):
            continue
        told, here = bool(named.search(text)), stem in path.stem
        meant = 2 * told + 2 * here + (folder.removesuffix("s") in path.stem)  # test_tune_cli is of tune/cli
        if here or told:
            ranked.append((1, -meant, len(text), path))
        elif folder not in PACKAGES and folder in path.stem:
            ranked.append((2, 0, len(text), path))
        elif helpers & set(re.findall(r"^(?:from|import) (\w+)", text, re.M)):
            ranked.append((3, 0, len(text), path))
    names = [str(path.relative_to(COPY)) for *_, path in sorted(ranked)]
    near = WHOLE.get(dotted.rpartition(".")[0], WHOLE.get(f"retake.{package}", ()))
    whole = [f"tests/{name}.py" for name in (*ANY, *near)]
    others = [str(path.relative_to(COPY)) for path, _ in _tests() if path.name.startswith("test_")]
    further = [n for n in (*names[NEAREST:], *others) if is_measured(n, module) and trace_of(n, module).enters(module)]
    return tuple(dict.fromkeys(n for n in (*names[:NEAREST], *whole, *further) if (COPY / n).is_file()))


def _trace_file(file: str) -> Path:
    return CACHE / "traces" / f"{file.replace('/', '.')}.json"


def is_measured(file: str, module: Path) -> bool:
    """Whether it is known what the test file executes, for this text of it and of the module."""
    kept, name = _trace_file(file), str(module.relative_to(ROOT / "exts"))
    if not kept.is_file():
        return False
    text, sources = _measured_with(kept)
    return text == _hash(COPY / file) and sources.get(name) == _hash(module)


@cache
def _measured_with(kept: Path) -> tuple[str, dict[str, str]]:
    known = json.loads(kept.read_text())
    return known["file"], known["sources"]


def trace_of(file: str, module: Path) -> Trace:
    """What the test file executes, measured unless it is known for this text of the file and of the module."""
    kept = _trace_file(file)
    if not is_measured(file, module):
        print(f"  measuring {file}", flush=True)
        found = session_for(file).obey({"trace": file}, TRACE_LIMIT_S)
        sources = {str(p.relative_to(COPY / "exts")): _hash(p) for p in (COPY / "exts").glob("retake.*/retake/**/*.py")}
        known = {
            "file": _hash(COPY / file),
            "sources": sources,
            "tests": found.get("tests", {}),
            "lines": found.get("lines", {}),
        }
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(known))
        _trace.cache_clear()
        _measured_with.cache_clear()
    return _trace(kept)


@cache
def _trace(kept: Path) -> Trace:
    known = json.loads(kept.read_text())
    return Trace(known["tests"], known["lines"])


def chosen_tests(file: str, module: Path, fault: Fault, *, measure: bool) -> list[tuple[str, float]]:
    """(node id, seconds) of the tests of one file to run: where it is measured (or is to be) those that execute the fault,
    shortest first; else all of the file, which count as half of MOST_S."""
    if not measure and not is_measured(file, module):
        names = [name for name in session_for(file).tests if name.startswith(f"{file}::")]
        return [(name, MOST_S / 2 / len(names)) for name in names]
    trace = trace_of(file, module)
    names = trace.reaching(str(module.relative_to(ROOT / "exts")), fault)
    if (
        not names and not fault.in_function and not trace.enters(module)
    ):  # a module of constants: no test executes a line of it
        names = [name for name, test in trace.tests.items() if test["outcome"] == "passed"]
    chosen: list[tuple[str, float]] = []
    for seconds, name in sorted((trace.tests[name]["seconds"], name) for name in names):
        if chosen and sum(s for _, s in chosen) + seconds > MOST_S:
            break
        chosen.append((name, seconds))
    return chosen


class Session:
    """A pytest process that has collected test files and runs orders in forks (session.py)."""

    def __init__(self, files: list[str]) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._process = subprocess.Popen(
            [_python(files[0]), "scripts/mutation/session.py", str(COPY / "exts"), str(orders), str(answers), *files, *OPTIONS],
            cwd=COPY, env=_environment(), pass_fds=(orders, answers), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(orders)
        os.close(answers)
        atexit.register(self._process.kill)
        self.tests: list[str] = self._answer(COLLECT_LIMIT_S)["collected"]
        print(f"  collected {len(self.tests)} tests", flush=True)

    def obey(self, order: dict[str, Any], limit_s: float) -> dict[str, Any]:
        os.write(self._orders, (json.dumps({**order, "limit_s": limit_s}) + "\n").encode())
        answer = self._answer(LONGEST_S)
        if "broken" in answer:
            raise RuntimeError(f"the fault could not be planted: {answer['broken']}")
        return answer

    def _answer(self, limit_s: float) -> dict[str, Any]:
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], limit_s)
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the session of the tests gives no answer")
            text += part
        return json.loads(text)


def session_for(file: str) -> Session:
    return _session(_in_worker(file))


ONLY: set[str] = set()
"""Test files that are looked at (empty: all)."""


@cache
def _session(of_worker: bool) -> Session:
    folder = COPY / "tests"  # what the checkout got since then is not in the copy
    names = [str(p.relative_to(COPY)) for p in (*folder.glob("test_*.py"), *(folder / "worker").glob("test_*.py"))]
    return Session(sorted(n for n in names if _in_worker(n) == of_worker and (not ONLY or n in ONLY)))


def _in_worker(file: str) -> bool:
    return file.startswith("tests/worker/")


def _python(file: str) -> Path:
    return ROOT / (".venv-worker" if _in_worker(file) else ".venv") / "bin/python"


def _environment() -> dict[str, str]:
    home = CACHE / "home"
    home.mkdir(parents=True, exist_ok=True)
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    return {
        **os.environ, **SEED, **threads, "HOME": str(home), "WARP_CACHE_PATH": str(CACHE / "warp"),
        "PYTHONPATH": os.pathsep.join([*(str(COPY / f"exts/retake.{name}") for name in PACKAGES), str(SITE)]),
    }  # fmt: skip


def run(file: str, command: list[str], limit_s: float) -> tuple[int | None, str]:
    """(exit code or None after limit_s, stdout) of a Python command in the copy, with nothing of it left running."""
    process = subprocess.Popen(
        [_python(file), *command, *OPTIONS], cwd=COPY, env=_environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=limit_s)
        return process.returncode, text
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        _kill_group(process.pid)
        process.wait()


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
