# SPDX-License-Identifier: Apache-2.0
"""`retake bench isaac`: what a recording costs inside the simulation's callbacks.

Measured on the fakes of the test suite with real array sizes (one robot, one 640x480 camera with rgb, depth, normals and
instance ids, PhysX-sized state buffers): Retake's own work, not PhysX's or the renderer's. The baseline in the same run
is the plain way: encode and write the images inside the callback.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode.layout import encode_image
from retake.core.errors import MissingDependencyError

LIMIT_MS = (0.3, 2.0)
"""Median and 99th percentile that a 60 Hz simulation does not notice."""


def measure(version: str, seconds: float, folder: Path, size: tuple[int, int] = (640, 480)) -> dict[str, Any]:
    """One recording of a fake simulation at 60 Hz real time; callback costs in ms."""
    fakes = Path(__file__).resolve().parents[4] / "tests"
    if not (fakes / "fakes" / "kit.py").is_file():
        raise MissingDependencyError(
            "this bench runs on the fakes in tests/fakes; run it in a checkout of the repository"
        )
    sys.path.insert(0, str(fakes))
    try:
        from fakes import kit as fake  # type: ignore[import-not-found]
        from fakes.stage import make_stage, random_motion  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(fakes))
    from retake.isaac.live_capture import LiveCapture
    from retake.isaac.request import CaptureRequest, percentiles

    motion = random_motion(make_stage(), 240)
    images = fake.images_of(motion, "/World/Camera0", 0, size)
    original, plain = fake.images_of, []
    fake.images_of = lambda *unused: images  # drawing pictures is the fake's cost, not the capture's
    try:
        with fake.FakeKit(version, motion, lag=2) as kit:
            capture = LiveCapture(CaptureRequest(output=str(folder / version), fps=15, width=size[0], height=size[1]))
            capture.start()
            kit.play()
            began = time.perf_counter()
            for tick in range(int(seconds * 60)):
                kit.update()
                time.sleep(max(0.0, began + (tick + 1) / 60 - time.perf_counter()))
            costs = capture._costs[4:]  # the first step opens files and reads the stage
            capture.close("bench")
            status = capture.status
    finally:
        fake.images_of = original
    for _ in range(20):
        started = time.perf_counter_ns()
        for channel, key in (("rgb", "rgb"), ("depth", "depth")):
            encode_image(channel, np.ascontiguousarray(images[key][..., :3] if channel == "rgb" else images[key]))
        plain.append(time.perf_counter_ns() - started)
    p50, p99 = percentiles(costs)
    return {
        "version": version,
        "calls": len(costs),
        "p50_ms": round(p50, 4),
        "p99_ms": round(p99, 4),
        "max_ms": round(max(costs) / 1e6, 4),
        "frames": status.written,
        "dropped": status.dropped,
        "slowed_s": round(capture._recorder.waited_s, 3) if capture._recorder else 0.0,
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "baseline_p50_ms": round(percentiles(plain)[0], 4),
        "holds": p50 <= LIMIT_MS[0] and p99 <= LIMIT_MS[1],
    }


def main(argv: list[str]) -> int:
    """Print a table and, with --json, write it; exit code 1 when a limit is broken."""
    parser = argparse.ArgumentParser(prog="retake bench isaac", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="simulated time per version")
    parser.add_argument("--version", action="append", choices=("4.2", "4.5", "5.1", "6.x"), help="default: 5.1 and 6.x")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    options = parser.parse_args(argv)
    rows = []
    print(
        f"{'API':<5}{'calls':>7}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'frames':>8}{'dropped':>9}{'slowed s':>10}"
        f"{'load':>6}  write in callback p50 ms"
    )
    for version in options.version or ["5.1", "6.x"]:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(version, options.seconds, Path(folder))
        rows.append(row)
        print(
            f"{version:<5}{row['calls']:>7}{row['p50_ms']:>9.3f}{row['p99_ms']:>9.3f}{row['max_ms']:>9.3f}{row['frames']:>8}"
            f"{row['dropped']:>9}{row['slowed_s']:>10.2f}{row['load_average'] or 0:>6}  {row['baseline_p50_ms']:.2f}"
        )
    print(
        f"limits: p50 {LIMIT_MS[0]} ms, p99 {LIMIT_MS[1]} ms: {'held' if all(r['holds'] for r in rows) else 'BROKEN'}"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1
