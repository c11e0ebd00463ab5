# SPDX-License-Identifier: Apache-2.0
"""Proves capture in Isaac Sim as far as that is possible without one: 500 randomised schedules on signature-enforcing
fakes of four API generations, planted faults, the callback benchmark, and the panel's and writer's tests.

    python scripts/prove.py isaac                       writes docs/proof/isaac.{json,md}

What only a real Isaac Sim can confirm is in docs/isaac_sim_checklist.md and is measured there by `retake kit-selftest`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from retake.core.files import sha256_file, sha256_json, write_json

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "schedules": ["tests/test_isaac_capture.py"],
    "pairing": ["tests/test_capture_pairing.py", "tests/test_capture_recorder.py"],
    "bad input": ["tests/test_isaac_bad_input.py"],
    "writer, headless, packaging": ["tests/test_isaac_writer.py"],
    "self-test and doctor": ["tests/test_isaac_selftest.py"],
    "panel": ["tests/test_ui_view_model.py", "tests/test_ui_panel.py"],
    "interchange": ["tests/test_interchange.py"],
}


def run_tests(paths: list[str], quick: bool) -> dict[str, object]:
    """One pytest run, at full counts unless quick."""
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if quick else {"RETAKE_FULL": "1"})}
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "7200", "-p", "no:cacheprovider", *paths]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-400:]
    passed = re.search(r"(\d+) passed", last)
    return {
        "ok": done.returncode == 0,
        "passed": int(passed.group(1)) if passed else 0,
        "seconds": round(time.monotonic() - started, 1),
        "summary": last,
    }


def bench(seconds: float) -> list[dict[str, object]]:
    """`retake bench isaac`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.json")
        command = [
            sys.executable,
            "-m",
            "retake.core.cli",
            "bench",
            "isaac",
            "--seconds",
            str(seconds),
            "--json",
            str(path),
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        return json.loads(path.read_text())


def prove(out_dir: Path, quick: bool) -> dict[str, object]:
    """Run everything; what is proved already for the same sources is not run again."""
    sources = sorted(
        [
            *ROOT.glob("exts/retake.isaac/**/*.py"),
            *ROOT.glob("exts/retake.ui/**/*.py"),
            *ROOT.glob("exts/retake.core/retake/core/capture/*.py"),
            *ROOT.glob("tests/fakes/*"),
            *ROOT.glob("tests/test_isaac*.py"),
        ]
    )
    mark = sha256_json({str(p.relative_to(ROOT)): sha256_file(p) for p in sources if p.is_file()})
    path = out_dir / "isaac.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    known = old.get("tests", {}) if old.get("sources") == mark else {}
    result: dict[str, object] = {
        "sources": mark,
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "schedules": 30 if quick else 500,
    }
    outcomes = {}
    for name, paths in TESTS.items():
        outcomes[name] = known[name] if known.get(name, {}).get("ok") else run_tests(paths, quick)
        print(f"{'ok  ' if outcomes[name]['ok'] else 'FAIL'} {name}: {outcomes[name]['summary']}", flush=True)
        write_json(path, {**result, "tests": outcomes})
    result = {**result, "tests": outcomes, "callback": bench(3 if quick else 10)}
    write_json(path, result)
    (out_dir / "isaac.md").write_text(page(result))
    if not all(o["ok"] for o in outcomes.values()):
        raise SystemExit("a proof does not hold")
    return result


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        f"| {n} | {'holds' if o['ok'] else 'FAILS'} | {o['passed']} tests, {o['seconds']} s |"
        for n, o in result["tests"].items()
    ]  # type: ignore[attr-defined]
    cost = [
        "| "
        + " | ".join(
            str(r[k]) for k in ("version", "p50_ms", "p99_ms", "max_ms", "load_average", "baseline_p50_ms", "holds")
        )
        + " |"
        for r in result["callback"]  # type: ignore[attr-defined]
    ]
    return "\n".join(
        [
            "# Capture in Isaac Sim, on signature-enforcing fakes",
            "",
            f"{result['schedules']} randomised schedules; {result['machine']}, {result['cores']} cores.",
            "Not run in a real Isaac Sim.",
            "",
            "| proof | | |",
            "|---|---|---|",
            *rows,
            "",
            "Cost in the simulation's callbacks, 640x480, one robot (limits p50 0.3 ms, p99 2 ms):",
            "",
            "| API | p50 ms | p99 ms | max ms | load average | encoding in the callback, p50 ms | holds |",
            "|---|---|---|---|---|---|---|",
            *cost,
            "",
        ]
    )
