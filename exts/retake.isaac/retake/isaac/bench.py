# SPDX-License-Identifier: Apache-2.0
"""`retake bench isaac`: what a recording costs inside the simulation's callbacks.

Measured on the fakes of the test suite with real array sizes: the Panda of the demo stage (11 links, 9 joints), one
640x480 camera with rgb, depth, normals and instance ids, at 60 physics steps a second in real time. Counted is Retake's
own work and the fakes' (their signature checks included), not PhysX's or the renderer's. Waiting for a full queue is the
slowing-down that was asked for; it is told in a column of its own and breaks the limit when it passes 1 % of the time.
The baseline in the same run is the plain way: encode and write the images inside the callback.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.episode.layout import encode_image
from retake.core.errors import MissingDependencyError
from retake.core.host import load_average
from retake.isaac.costs import percentiles

LIMIT_MS = (0.3, 2.0)
"""Median and 99th percentile that a 60 Hz simulation does not notice."""
SLOWED_SHARE = 0.01
"""Share of the time that the simulation may be slowed down by the disk before the figures count as no measurement."""
WARM_UP = 4
"""Calls left out: the first step opens files and reads the stage."""
ROOT = Path(__file__).resolve().parents[4]
STAGE, CAMERA = ROOT / "data/stages/pick_place/scene.usda", "/World/Camera"
COLUMNS = ("version", "calls", "p50_ms", "p99_ms", "max_ms", "step_p50_ms", "step_p99_ms", "frame_p50_ms", "frame_p99_ms",
           "frames", "dropped", "slowed_s", "load_average", "baseline_p50_ms")  # fmt: skip


def measure(version: str, seconds: float, folder: Path, size: tuple[int, int] = (640, 480)) -> dict[str, Any]:
    """One recording of a fake simulation at 60 Hz real time; callback costs in ms. Raises MissingDependencyError outside
    a checkout."""
    fake, motion = _simulation()
    from retake.isaac.live_capture import LiveCapture
    from retake.isaac.request import CaptureRequest

    images = fake.images_of(motion, CAMERA, 0, size)
    original = fake.images_of
    fake.images_of = lambda *unused: images  # drawing pictures is the fake's cost, not the capture's
    request = CaptureRequest(output=str(folder / version), fps=15, width=size[0], height=size[1], cameras=(CAMERA,))
    try:
        with fake.FakeKit(version, motion, lag=2) as kit:
            capture = LiveCapture(request)
            capture.start()
            kit.play()
            began = time.perf_counter()
            for tick in range(int(seconds * 60)):
                kit.update()
                time.sleep(max(0.0, began + (tick + 1) / 60 - time.perf_counter()))
            took = time.perf_counter() - began
            capture.close("bench")
            status = capture.status
    finally:
        fake.images_of = original
    steps, frames = list(capture.costs.steps)[WARM_UP:], list(capture.costs.frames)[WARM_UP:]
    whole, step, frame = percentiles(steps + frames), percentiles(steps), percentiles(frames)
    row = {
        "version": version, "calls": len(steps) + len(frames), "p50_ms": whole[0], "p99_ms": whole[1],
        "max_ms": max(steps + frames) / 1e6, "step_p50_ms": step[0], "step_p99_ms": step[1], "frame_p50_ms": frame[0],
        "frame_p99_ms": frame[1], "frames": status.written, "dropped": status.dropped, "slowed_s": status.waited_s,
        "load_average": load_average(), "baseline_p50_ms": _plain(images),
    }  # fmt: skip
    held = all(p50 <= LIMIT_MS[0] and p99 <= LIMIT_MS[1] for p50, p99 in (whole, step, frame))
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    return {**rounded, "holds": held and status.waited_s <= SLOWED_SHARE * took}


def main(argv: list[str]) -> int:
    """Print a table and, with --json, write it; exit code 1 when a limit is broken."""
    parser = argparse.ArgumentParser(
        prog="retake bench isaac", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="simulated time per version")
    parser.add_argument("--version", action="append", choices=("4.2", "4.5", "5.1", "6.x"), help="default: 5.1 and 6.x")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    options = parser.parse_args(argv)
    rows = []
    print("  ".join(f"{name:>12}" for name in COLUMNS))
    for version in options.version or ["5.1", "6.x"]:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(version, options.seconds, Path(folder))
        rows.append(row)
        print("  ".join(f"{row[name]:>12}" for name in COLUMNS))
    print(
        f"limits: p50 {LIMIT_MS[0]} ms, p99 {LIMIT_MS[1]} ms, slowed by the disk for {SLOWED_SHARE:.0%} of the time: "
        f"{'held' if all(r['holds'] for r in rows) else 'BROKEN'}"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    return 0 if all(row["holds"] for row in rows) else 1


def _simulation() -> tuple[Any, Any]:
    """The fake simulator's module, and the demo stage with a motion on it."""
    fakes = ROOT / "tests"
    if not (fakes / "fakes" / "kit.py").is_file():
        raise MissingDependencyError(
            "this bench runs on the fakes in tests/fakes; run it in a checkout of the repository"
        )
    sys.path.insert(0, str(fakes))
    try:
        from fakes import kit as fake  # type: ignore[import-not-found]
        from fakes.stage import random_motion  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(fakes))
    from pxr import Usd

    return fake, random_motion(Usd.Stage.Open(str(STAGE)), 240)


def _plain(images: dict[str, Any]) -> float:
    """The plain way's median, ms: rgb and depth encoded where the simulation waits for it."""
    taken = []
    for _ in range(20):
        started = time.perf_counter_ns()
        encode_image("rgb", np.ascontiguousarray(images["rgb"][..., :3]))
        encode_image("depth", images["depth"])
        taken.append(time.perf_counter_ns() - started)
    return percentiles(taken)[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
