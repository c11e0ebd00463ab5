# SPDX-License-Identifier: Apache-2.0
"""Proof of the arrow as a whole: kills, corruption, memory against episode length, and how long a run takes.

Kills and corruption run the very tests of `make test` with RETAKE_FULL=1 (30 kills of a capture, 30 of the arrow, 2,000
damaged byte ranges); timings are those of the command line on the `short` preset.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FULL_TESTS = {
    "kill -9 of a capture at random instants (30), corrupted byte ranges (2,000), round trips (300)": "tests/test_episode_io.py",
    "kill -9 of the arrow at random instants (30), resume, cancel, refusals": "tests/test_pipeline.py",
    "planted violations of the episode check": "tests/test_episode_check.py",
    "geometry laws (300 examples each)": "tests/test_geometry.py tests/test_camera.py tests/test_robot.py",
}
MEMORY = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
from strategies import random_frame, random_header
from retake.core.episode import EpisodeWriter, open_episode
from retake.core.episode.check import check_episode
from retake.core.skeleton import make_skeleton
import dataclasses
frames = int(sys.argv[1])
rng = np.random.default_rng(0)
header = random_header(rng)
header = dataclasses.replace(header, cameras=(dataclasses.replace(header.cameras[0], size=(32, 24)),))
one = random_frame(rng, header, 0)
with tempfile.TemporaryDirectory() as folder:
    with EpisodeWriter(Path(folder) / "e", header) as writer:
        for k in range(frames):
            writer.append(dataclasses.replace(one, time_s=k / header.fps, physics=None))
        writer.finish()
    episode = open_episode(Path(folder) / "e")
    check_episode(episode)
    make_skeleton(episode, header.cameras[0].name, Path(folder) / "skeleton", model_size=(32, 24))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def _pytest(files: str, full: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        environment = {**os.environ, "RETAKE_FULL": "1" if full else "0"}
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *files.split(), "-q", f"--junitxml={report}", "-o", "timeout=3600"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        suite = ET.parse(report).getroot().find("testsuite")
        assert suite is not None
        numbers = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    return {**numbers, "passed": done.returncode == 0, "seconds": round(time.monotonic() - started, 1)}


def _memory(frames: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(frames)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "tests"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return round(float(done.stdout.strip().splitlines()[-1]), 1)


def _timed(folder: Path, *arguments: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "retake.core.cli", *arguments], cwd=folder, capture_output=True, check=True)
    return round(time.monotonic() - started, 2)


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run what is missing from docs/proof/arrow.json (or all, after removing that file) and write JSON and a table."""
    target = out_dir / "arrow.json"
    result: dict[str, Any] = json.loads(target.read_text("utf-8")) if target.exists() else {}

    def save() -> None:
        target.write_text(json.dumps(result, indent=2) + "\n", "utf-8")

    for name, files in FULL_TESTS.items():
        if not result.get(name, {}).get("passed"):
            print(f"   {name} …", flush=True)
            result[name] = _pytest(files, not quick)
            save()
    if "memory" not in result:
        lengths = (100, 300) if quick else (1_000, 10_000)
        result["memory"] = {f"{n} frames: peak MiB of writing, check and skeleton": _memory(n) for n in lengths}
        save()
    if "seconds" not in result:
        with tempfile.TemporaryDirectory() as folder:
            run = ("run", "--run", "r", "--preset", "short")
            result["seconds"] = {
                "whole arrow from scratch, caches warm": _timed(Path(folder), *run),
                "untouched re-run": _timed(Path(folder), *run),
            }
        save()
    lines = ["# Proof: the arrow", "", "| what | result |", "|---|---|"]
    lines += [
        f"| {name} | {value['tests']} tests, {value['failures'] + value['errors']} failures, {value['seconds']} s |"
        for name, value in result.items()
        if "tests" in value
    ]
    lines += [f"| {name} | {value} |" for group in ("memory", "seconds") for name, value in result[group].items()]
    (out_dir / "arrow.md").write_text("\n".join(lines) + "\n", "utf-8")
    return result
