# SPDX-License-Identifier: Apache-2.0
"""`retake bench variants`: seconds and peak memory per first frame, for every backend that can run here.

Baseline in the same run: `procedural`. A diffusion backend without its model is listed as not measured, with the
reason; `--random tiny` measures the code with a few thousand random weights, `--random full` the published size with
random weights on a CUDA device (no download; time and memory do not depend on what the weights say).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from retake.core import plugins
from retake.core.episode import open_episode
from retake.core.errors import EpisodeError, InputError, MissingDependencyError, unknown_name
from retake.core.files import write_json
from retake.core.run_layout import RunLayout
from retake.core.variants.backends import BACKENDS, EXTRAS, image_backend
from retake.core.variants.base import ImageBackend, SourceFrame, World, source_frame
from retake.core.variants.lock import lock_robot
from retake.core.variants.worlds import load_catalogue

RANDOM = "retake.worker.first_frame.random_models:random_backend"
MIB = 1 << 20


def main(argv: list[str]) -> int:
    """Measure and print a table; `--json FILE` also writes it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="retake bench variants", description=__doc__)
    parser.add_argument("episode", nargs="?", type=Path, default=Path("runs/demo"), help="run or episode (runs/demo)")
    parser.add_argument("--camera", default="front")
    parser.add_argument("--frames", type=int, default=5, help="frames per backend, beside the first (default 5)")
    parser.add_argument("--backends", default="", help=f"comma-separated; all of {', '.join(BACKENDS)} by default")
    parser.add_argument("--random", choices=("no", "tiny", "full"), default="no", help="weights of diffusion backends")
    parser.add_argument("--preset", default="kitchen", help="the world that is made (default kitchen)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(argv)
    if not 1 <= options.frames <= 10_000:
        raise InputError(f"--frames {options.frames} is not within 1 … 10000")
    names = [name.strip() for name in options.backends.split(",") if name.strip()] or [
        n for n in BACKENDS if n != "auto"
    ]
    known = plugins.choices("retake.image_backends", BACKENDS)
    for name in names:
        if name not in known:
            raise InputError(unknown_name("image backend", name, known))
    source = _source(options.episode, options.camera)
    world = load_catalogue().preset(options.preset)
    rows = measure(source, world, names, options.frames, options.random)
    for line in table(rows, source):
        print(line)
    if options.json:
        write_json(options.json, {"size": list(source.rgb.shape[1::-1]), "random": options.random, "rows": rows})
    return 0


def measure(
    source: SourceFrame, world: World, names: list[str], frames: int, random: str = "no"
) -> list[dict[str, Any]]:
    """One row per backend: seconds of the first frame (with loading), median of the others, peak bytes of process and
    card; or `reason` why it was not measured."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        for name in names:
            try:
                made = _maker(name, source, world, Path(folder), random)
                rows.append({"backend": name, **_timed(made, source, world, frames)})
            except (InputError, MissingDependencyError) as error:
                rows.append({"backend": name, "reason": str(error)})
    return rows


def table(rows: list[dict[str, Any]], source: SourceFrame) -> list[str]:
    """The rows as text."""
    height, width = source.rgb.shape[:2]
    base = next((row["seconds"] for row in rows if row["backend"] == "procedural" and "seconds" in row), None)
    lines = [
        f"first frames of {width}x{height}; seconds per frame, peak MiB of this process and of the card",
        f"{'backend':<18}{'first':>9}{'each':>9}{'x procedural':>14}{'process':>10}{'card':>9}  note",
    ]
    for row in rows:
        if "reason" in row:
            lines.append(f"{row['backend']:<18}not measured: {row['reason']}")
            continue
        against = f"{row['seconds'] / base:.1f}" if base else "-"
        process, card = (
            "-" if not row[k] else f"{row[k] / MIB:.0f}" for k in ("peak_process_bytes", "peak_card_bytes")
        )
        lines.append(
            f"{row['backend']:<18}{row['first_s']:>9.3f}{row['seconds']:>9.3f}{against:>14}{process:>10}{card:>9}  {row['note']}"
        )
    return lines


def _maker(name: str, source: SourceFrame, world: World, folder: Path, random: str) -> Callable[[], ImageBackend]:
    if name == "folder":
        picture = image_backend("procedural").render(source, world, 0)
        cv2.imwrite(
            str(folder / f"{world.name}.png"), cv2.cvtColor(lock_robot(picture, source).frame, cv2.COLOR_RGB2BGR)
        )
        return lambda: image_backend("folder", folder=folder, licence="CC0-1.0", lock=True)
    if random != "no" and name in EXTRAS and name != "auto":
        return lambda: plugins.load(RANDOM, extra=EXTRAS[name])(name, random)
    return lambda: image_backend(name)


def _timed(make: Callable[[], ImageBackend], source: SourceFrame, world: World, frames: int) -> dict[str, Any]:
    reset = _reset_peak()
    began = time.perf_counter()
    backend = make()
    backend.render(source, world, 0)
    first = time.perf_counter() - began
    each, card = [], 0
    for seed in range(1, frames + 1):
        began = time.perf_counter()
        backend.render(source, world, seed)
        each.append(time.perf_counter() - began)
        card = max(card, int(getattr(backend, "report", {}).get("peak_device_bytes", 0)))
    tier = getattr(backend, "tier", "")
    if callable(close := getattr(backend, "close", None)):
        close()
    return {
        "first_s": round(first, 4), "seconds": round(statistics.median(each), 4), "slowest_s": round(max(each), 4),
        "frames": frames, "peak_process_bytes": _peak() if reset else 0, "peak_card_bytes": card,
        "note": ", ".join(text for text in (getattr(backend, "model", ""), tier and f"tier {tier}") if text),
    }  # fmt: skip


def _source(path: Path, camera: str) -> SourceFrame:
    recorded = RunLayout(path).captured_episode
    try:
        return source_frame(open_episode(recorded if recorded.is_dir() else path), camera, 0)
    except EpisodeError as error:
        raise InputError(f"no episode to dress: {error}; `retake run --run runs/demo` makes one") from error


def _reset_peak() -> bool:
    """Start counting the process's peak memory anew; False where the system cannot (only Linux can)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    """Peak resident bytes since `_reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
