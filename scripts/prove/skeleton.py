# SPDX-License-Identifier: Apache-2.0
"""Proof of the skeleton: pixel parity, negative controls, laws at full count, memory on 10,000 frames, speed, kills.

Writes skeleton.json and skeleton.md. Finished parts are cached (skeleton.partial.json) and not run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "skeleton" / "cases.npz"
DROID = ROOT.parent / "shared" / "golden" / "droid"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import bench_skeleton  # noqa: E402
import skeleton_oracle as oracle  # noqa: E402

from retake.core.files import sha256_bytes, sha256_file, write_bytes, write_json  # noqa: E402
from retake.core.skeleton import arms_of, render_skeleton, skeleton_frames  # noqa: E402

ARGUMENTS = ("link_positions", "ee_pose", "gripper_openness", "camera_intrinsic", "camera_extrinsic")


Arguments = tuple[Any, Any, Any, Any, Any]


def golden_case(data: Any, case: int, frames: int | None = None) -> tuple[Arguments, np.ndarray]:
    """The first `frames` frames of a golden case: arguments of render_skeleton without the size, and its frames."""
    points, ee, openness, K, E = (data[f"case{case}/{name}"] for name in ARGUMENTS)
    return (points[:frames], ee[:frames], openness[:frames], K, E[:frames]), data[f"case{case}/frames"][:frames]


def golden_parity(quick: bool) -> dict[str, Any]:
    """Pixels that differ from the golden frames, and from each deliberately broken drawing (which must differ)."""
    differing, frames, broken = 0, 0, dict.fromkeys(oracle.BROKEN, 0)
    with np.load(GOLDEN) as data:
        for case in range(6):
            arguments, expected = golden_case(data, case)
            size = expected.shape[2:0:-1]
            differing += int((render_skeleton(*arguments, size) != expected).any(-1).sum())
            frames += len(expected)
            for name, rules in oracle.BROKEN.items():
                broken[name] += int((oracle.render(*arguments, size, rules) != expected).any(-1).sum())
    return {
        "frames": frames,
        "differing_pixels": differing,
        "differing_pixels_of_broken_drawings": broken,
        "holds": differing == 0 and min(broken.values()) > 0,
    }


def droid_parity(quick: bool) -> dict[str, Any]:
    """The public sample imported from its video, arrays and URDF, then drawn."""
    if not DROID.exists():
        return {"holds": None, "skipped": "the public DROID sample is not beside this checkout"}
    from retake.core.importers.oscar import import_oscar

    with tempfile.TemporaryDirectory() as folder, np.load(DROID / "skeleton_reference.npz") as ref:
        episode = import_oscar(DROID, Path(folder) / "episode")
        frames, links = ref["frames"], ref["link_positions"]
        error = float(np.abs(arms_of(episode)[0].track.link_positions - links).max())
        drawn = skeleton_frames(episode, "camera", reuse=True)
        differing = sum(int((a != b).any(-1).sum()) for a, b in zip(drawn, frames, strict=True))
    return {
        "frames": len(frames),
        "differing_pixels": differing,
        "link_position_error_m": error,
        "holds": differing == 0 and error < 1e-6,
    }


def random_parity(quick: bool) -> dict[str, Any]:
    """Random scenes against the plain loop: near, far, behind the camera, 1 px to 300 px, static and moving cameras."""
    scenes, wrong = 200 if quick else 5000, 0
    for seed in range(scenes):
        arguments = oracle.random_scene(np.random.default_rng(seed))
        wrong += not np.array_equal(render_skeleton(*arguments), oracle.render(*arguments))
    return {"scenes": scenes, "scenes_that_differ": wrong, "holds": wrong == 0}


def laws(quick: bool) -> dict[str, Any]:
    """The skeleton tests, full hypothesis counts and 30 kills (reduced when quick)."""
    tests = ("test_skeleton.py", "test_skeleton_episode.py", "test_oscar_episode.py", "test_urdf.py")
    environment = {**os.environ, "RETAKE_FULL": "0" if quick else "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(str(ROOT / "tests" / t) for t in tests),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return {
        "failed": failed,
        "summary": (done.stdout.strip().splitlines() or [""])[-1].split(" in ")[0],
        "holds": done.returncode == 0,
    }


MEMORY = """
import json, resource, sys
sys.path[:0] = [{tests!r}]
import numpy as np, skeleton_oracle as oracle
from retake.core.skeleton import ArmTrack, CameraTrack, stream_skeleton
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def run(T):
    points, ee, openness, K, E, _ = oracle.random_scene(np.random.default_rng(1), T)
    arms = [ArmTrack(points, ee, openness)] * 2
    return sum(1 for _ in stream_skeleton(arms, CameraTrack(K, E, (640, 480)), reuse=True))
run(300); short = peak(); count = run({frames}); print(json.dumps([count, short, peak()]))
"""


def memory(quick: bool) -> dict[str, Any]:
    """Peak memory of a two-armed stream of 10,000 frames at 640x480 beyond that of 300 frames, MiB."""
    frames = 1000 if quick else 10_000
    code = MEMORY.format(tests=str(ROOT / "tests"), frames=frames)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, short, long = json.loads(done.stdout)
    grown = round(long - short, 1)
    return {"frames": count, "growth_mib": grown, "one_frame_mib": 0.9, "holds": count == frames and grown < 60}


def speed(quick: bool) -> dict[str, Any]:
    """bench_skeleton in this run."""
    result = bench_skeleton.measure(*((100, 3) if quick else (300, 7)))
    faster = result["times_faster_than_demo_style"], result["times_faster_than_drawing_alone"]
    per_frame = result["ms_per_frame"]["retake_from_links"]
    return {**result, "holds": faster[0] >= 3 and faster[1] >= 1 and per_frame < 1}


def squeeze(quick: bool) -> dict[str, Any]:
    """Drawing at 1280x720 and resizing is not drawing at 640x480: the pixels that tell them apart (negative control)."""
    from retake.core.skeleton import Squeeze

    with np.load(GOLDEN) as data:
        (points, ee, openness, K, E), expected = golden_case(data, 1, 2)
    rule = Squeeze((1280, 720))
    small = np.stack([rule.squeeze(f) for f in render_skeleton(points, ee, openness, K, E, (1280, 720))])
    same = bool((small == np.stack([rule.squeeze(f) for f in expected])).all())
    K = np.diag([rule.sx, rule.sy, 1.0]) @ K
    apart = int((render_skeleton(points, ee, openness, K, E, (640, 480)) != small).any(-1).sum())
    return {"pixels_that_differ_when_drawn_small": apart, "holds": same and apart > 0}


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "golden_parity": golden_parity,
    "droid_parity": droid_parity,
    "random_parity": random_parity,
    "squeeze": squeeze,
    "memory": memory,
    "laws": laws,
    "speed": speed,
}


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run every part that is not cached for this code; write skeleton.json and .md. Exits non-zero where one fails."""
    cache = ROOT / ".cache" / "proof" / f"skeleton.{'quick' if quick else 'full'}.partial.json"
    sources = [*(ROOT / "exts/retake.core/retake/core/skeleton").glob("*.py"), *(ROOT / "tests").glob("*skeleton*.py")]
    sources += [ROOT / "exts/retake.core/retake/core" / f"{name}.py" for name in ("oscar_episode", "urdf")]
    key = sha256_bytes(*(sha256_file(p).encode() for p in sorted([*sources, Path(__file__), GOLDEN])))
    done: dict[str, Any]
    try:
        done = json.loads(cache.read_text())
        done = done if done.get("key") == key else {"key": key}
    except (OSError, ValueError):
        done = {"key": key}
    for name, part in PARTS.items():
        if name not in done:
            done[name] = part(quick)
            write_json(cache, done)
        print(f"{name:<16} {'holds' if done[name]['holds'] else done[name]}", flush=True)
    parts = {name: done[name] for name in PARTS}
    result = {
        "proof": "skeleton",
        "quick": quick,
        "holds": all(p["holds"] in (True, None) for p in parts.values()),
        **parts,
    }
    write_json(out_dir / "skeleton.json", result)
    write_bytes(out_dir / "skeleton.md", _table(parts).encode())
    return result


def _table(parts: dict[str, Any]) -> str:
    rows = ["# Skeleton", "", "| proof | holds | measured |", "|---|---|---|"]
    for name, part in parts.items():
        what = "; ".join(f"{k}: {v}" for k, v in part.items() if k != "holds" and not isinstance(v, (dict, list)))
        verdict = {True: "yes", False: "NO", None: "skipped"}[part["holds"]]
        rows.append(f"| {name} | {verdict} | {what} |")
    broken = parts["golden_parity"]["differing_pixels_of_broken_drawings"]
    rows += [
        "",
        "Pixels of the golden frames that change when one rule is broken on purpose:",
        "",
        "| rule | pixels |",
        "|---|---|",
    ]
    rows += [f"| {name} | {count} |" for name, count in broken.items()]
    rows += ["", "Milliseconds per frame, 640x480, one run:", "", "| side | ms |", "|---|---|"]
    rows += [f"| {name} | {value} |" for name, value in parts["speed"]["ms_per_frame"].items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    result = prove(ROOT / "docs" / "proof", "--quick" in sys.argv)
    sys.exit(0 if result["holds"] else 1)
