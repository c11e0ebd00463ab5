# SPDX-License-Identifier: Apache-2.0
"""Proves capture in Isaac Sim as far as that is possible without one: 500 randomised schedules for each application profile of
the signature-enforcing fakes, planted faults, the assumptions turned over, the callback benchmark, panel and writer.

    python scripts/prove.py isaac                       writes docs/proof/isaac.{json,md}
    python scripts/prove/isaac.py --schedules           the schedules alone, resumable; --parts 3 stops after so many

What only a real Isaac Sim can confirm is in docs/isaac_sim_checklist.md and is measured there by `retake kit-selftest`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from retake.core.files import sha256_file, sha256_json, write_json

ROOT = Path(__file__).resolve().parents[2]
PARTS, SCHEDULES = 10, 500
"""Schedules of each profile run in parts with seeds of their own, each remembered: an interrupted proof goes on. Part by part
over all profiles, so that an unfinished proof has looked at each of them equally often."""
LAWS = "captured_episode_is or faulty_renderer"
TESTS = {
    "planted faults, modes": ["tests/test_isaac_capture.py"],
    "pairing": ["tests/test_capture_pairing.py", "tests/test_capture_recorder.py"],
    "assumptions turned over": ["tests/test_isaac_assumptions.py"],
    "bad input": ["tests/test_isaac_bad_input.py"],
    "settings": ["tests/test_isaac_settings.py"],
    "writer, packaging": ["tests/test_isaac_writer.py", "tests/test_isaac_processes.py"],
    "headless": ["tests/test_isaac_headless.py"],
    "loops of a script": ["tests/test_isaac_stepping.py"],
    "examples, start to report": ["tests/test_isaac_examples.py"],
    "self-test and doctor": ["tests/test_isaac_selftest.py"],
    "panel": ["tests/test_ui_view_model.py", "tests/test_ui_panel.py"],
    "recordings of others": ["tests/test_import_recordings.py"],
}

BESIDE = ("assumptions", "autorun", "bench", "extension", "leaving", "options", "preview", "processes", "selftest",
          "selftest_items", "stage_open", "standalone", "stepping", "writer", "__init__")  # fmt: skip
"""Adapters that a schedule does not run."""
CAPTURE = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "exts/retake.isaac/retake/isaac").glob("*.py")
    if path.stem not in BESIDE
)
ADAPTERS = [*CAPTURE, "exts/retake.core/retake/core/capture/*.py"]
FAKES = ["tests/fakes/*", "tests/isaac_support.py"]


def run_tests(paths: list[str], quick: bool, *options: str, **variables: str) -> dict[str, Any]:
    """One pytest run, at full counts unless quick."""
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if quick else {"RETAKE_FULL": "1"}), **variables}
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "7200", "-p", "no:cacheprovider", *options, *paths]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-400:]
    passed = re.search(r"(\d+) passed", last)
    return {
        "ok": done.returncode == 0,
        "passed": int(passed.group(1)) if passed else 0,
        "seconds": round(time.monotonic() - started, 1),
        "summary": last,
    }


def profiles() -> list[str]:
    """Every application profile that records live ("6.x full", …), newest first."""
    facts = json.loads((ROOT / "tests/fakes/profile_facts.json").read_text())["profiles"]
    return [name for name in reversed(facts) if not name.startswith("5.0 ")]


def run_part(profile: str, part: int) -> dict[str, Any]:
    """One part of a profile's randomised schedules (and half as many with a faulty renderer)."""
    return run_tests(
        ["tests/test_isaac_capture.py"], True, "-k", LAWS, f"--hypothesis-seed={part}",
        RETAKE_SCHEDULES=str(SCHEDULES // PARTS), RETAKE_PROFILE=profile,
    )  # fmt: skip


def run_schedules(path: Path, quick: bool, parts: int = PARTS, jobs: int = 1) -> dict[str, Any]:
    """Every part that is not proved yet for these sources, at most `parts` of each profile, `jobs` at a time; returns what is
    known so far."""
    mark = sources(["tests/test_isaac_capture.py"])
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known = data.get("randomised schedules", {})
    done = dict(known.get("parts", {})) if known.get("sources") == mark else {}
    todo = [
        (profile, part) for part in range(1 if quick else min(parts, PARTS)) for profile in profiles()
        if not done.get(f"{profile} {part}", {}).get("ok")
    ]  # fmt: skip
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_part, profile, part): f"{profile} {part}" for profile, part in todo}
        for count, finished in enumerate(as_completed(running), 1):
            name = running[finished]
            done[name] = finished.result()
            print(f"{count}/{len(todo)} {name}: {done[name]['summary']}", flush=True)
            data = json.loads(path.read_text()) if path.exists() else {}
            write_json(path, {**data, "randomised schedules": {"sources": mark, "parts": done}})
    return {"sources": mark, "parts": done}


def held_schedules(parts: dict[str, Any]) -> dict[str, int]:
    """Profile -> schedules that hold."""
    held = {
        profile: sum(v["ok"] for k, v in parts.items() if k.rpartition(" ")[0] == profile) for profile in profiles()
    }
    return {profile: count * SCHEDULES // PARTS for profile, count in held.items()}


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


def sources(paths: list[str]) -> str:
    """Hash of what a group of tests depends on: its own files, the adapters and the fakes; the panel's tests the panel, too."""
    patterns = [*ADAPTERS, *FAKES, *paths]
    if any("test_ui" in path for path in paths):
        patterns.append("exts/retake.ui/**/*.py")
    if any("test_import_recordings" in path for path in paths):
        patterns.append("exts/retake.core/retake/core/importers/recorded.py")
    if not any("test_isaac_capture" in path for path in paths):
        patterns += ["exts/retake.isaac/**/*.py", "exts/retake.core/retake/core/doctor.py"]
    found = sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})
    return sha256_json({str(path.relative_to(ROOT)): sha256_file(path) for path in found})


def prove(out_dir: Path, quick: bool, parts: int = PARTS) -> dict[str, Any]:
    """Run everything (`parts`: at most so many of each profile's schedules); a group that holds for the same sources is not
    run again, the benchmark always is."""
    path = out_dir / "isaac.json"
    schedules = run_schedules(path, quick, parts)
    held = held_schedules(schedules["parts"])
    known: dict[str, Any] = json.loads(path.read_text()).get("tests", {}) if path.exists() else {}
    result: dict[str, Any] = {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "schedules": sum(held.values()),
        "schedules of each profile": held,
        "randomised schedules": schedules,
    }
    outcomes = {}
    for name, paths in TESTS.items():
        mark, old = sources(paths), known.get(name, {})
        fresh = old.get("ok") and old.get("sources") == mark
        laws = ("-k", f"not ({LAWS})") if "tests/test_isaac_capture.py" in paths else ()
        outcomes[name] = old if fresh else {**run_tests(paths, quick, *laws), "sources": mark}
        print(f"{'ok  ' if outcomes[name]['ok'] else 'FAIL'} {name}: {outcomes[name]['summary']}", flush=True)
        write_json(path, {**result, "tests": {**known, **outcomes}})
    result = {**result, "tests": outcomes, "callback": bench(3 if quick else 10)}
    write_json(path, result)
    (out_dir / "isaac.md").write_text(page(result))
    if (
        not all(part["ok"] for part in schedules["parts"].values())
        or not all(o["ok"] for o in outcomes.values())
        or not all(row["holds"] for row in result["callback"])
    ):
        raise SystemExit("a proof does not hold")
    return result


def partial(out_dir: Path) -> None:
    """Write the page of an unfinished proof: the schedules that hold, and the groups that were proved for these very sources."""
    path = out_dir / "isaac.json"
    known: dict[str, Any] = json.loads(path.read_text())
    schedules = known["randomised schedules"]
    if schedules["sources"] != sources(["tests/test_isaac_capture.py"]):
        raise SystemExit("the schedules were run for other sources; run them again")
    held = held_schedules(schedules["parts"])
    proved = {
        name: old for name, old in known.get("tests", {}).items() if old.get("sources") == sources(TESTS.get(name, []))
    }
    result = {
        "machine": platform.platform(), "cores": os.cpu_count(), "schedules": sum(held.values()),
        "schedules of each profile": held, "randomised schedules": schedules, "tests": proved,
        "callback": known.get("callback", []),
    }  # fmt: skip
    write_json(path, result)
    (out_dir / "isaac.md").write_text(page(result))


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    profiles_held = " | ".join(f"{name}: {count}" for name, count in result["schedules of each profile"].items())
    rows = [
        f"| {n} | {'holds' if o['ok'] else 'FAILS'} | {o['passed']} tests, {o['seconds']} s |"
        for n, o in result["tests"].items()
    ]
    cost = [
        "| "
        + " | ".join(
            str(r[k])
            for k in (
                "version",
                "p50_ms",
                "p99_ms",
                "step_p50_ms",
                "step_p99_ms",
                "frame_p50_ms",
                "frame_p99_ms",
                "max_ms",
                "slowed_s",
                "load_average",
                "baseline_p50_ms",
                "holds",
            )
        )
        + " |"
        for r in result["callback"]
    ]
    return "\n".join(
        [
            "# Capture in Isaac Sim, on signature-enforcing fakes",
            "",
            f"{result['schedules']} randomised schedules over {len(result['schedules of each profile'])} application profiles "
            f"hold (full count: {SCHEDULES} of each), and half as many with a renderer that drops, repeats and shifts frames: 0 "
            f"frames paired with another state; {result['machine']}, {result['cores']} cores.",
            "",
            f"Schedules of each profile: {profiles_held}.",
            "",
            "Not run in a real Isaac Sim.",
            "",
            "| proof | | |",
            "|---|---|---|",
            *(rows or ["| groups of tests at full counts | not run for these sources yet | |"]),
            "",
            "Cost in the simulation's callbacks, one Panda, one 640x480 camera (limits p50 0.3 ms, p99 2 ms, over all calls",
            "and over each kind; waiting for a full queue is a column of its own and at most 1 % of the time):",
            "",
            "| API | p50 ms | p99 ms | step p50 | step p99 | frame p50 | frame p99 | max ms | slowed by the disk, s "
            "| load average | encoding in the callback, p50 ms | holds |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *cost,
            "",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", action="store_true", help="the schedules alone")
    parser.add_argument(
        "--parts", type=int, default=PARTS, help=f"of each profile, {SCHEDULES // PARTS} schedules each"
    )
    parser.add_argument("--jobs", type=int, default=1, help="parts at a time, one core each")
    parser.add_argument("--page", action="store_true", help="write the page of what is proved so far")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/proof")
    chosen = parser.parse_args()
    if chosen.page:
        partial(chosen.out)
    elif chosen.schedules:
        run_schedules(chosen.out / "isaac.json", False, chosen.parts, chosen.jobs)
    else:
        prove(chosen.out, False, chosen.parts)
