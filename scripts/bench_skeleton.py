# SPDX-License-Identifier: Apache-2.0
"""Skeleton speed at 640x480 against two loops of the same run.

demo-style loop   per frame: forward kinematics by a URDF library (yourdfpy), then each stroke projected and drawn
drawing alone     the same per-frame strokes with link positions given, on one reused canvas

Rounds are interleaved, so that a busy machine slows every side alike; the figure is the fastest round of each side, and
ratios are the median over rounds. usage: bench_skeleton.py [--frames N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import skeleton_oracle as oracle  # noqa: E402

from retake.core.robot import RobotSpec  # noqa: E402
from retake.core.skeleton import ArmTrack, CameraTrack, render_skeleton, stream_skeleton  # noqa: E402
from retake.core.skeleton.draw import CHUNK  # noqa: E402
from retake.core.skeleton.strokes import plan  # noqa: E402
from retake.core.urdf import read_urdf  # noqa: E402

SIZE = (640, 480)
# A 7-joint arm of Panda proportions: (xyz, rpy) of each joint frame in its parent.
_JOINTS = [
    ("0 0 0.333", "0 0 0"),
    ("0 0 0", "-1.5708 0 0"),
    ("0 -0.316 0", "1.5708 0 0"),
    ("0.0825 0 0", "1.5708 0 0"),
    ("-0.0825 0.384 0", "-1.5708 0 0"),
    ("0 0 0", "1.5708 0 0"),
    ("0.088 0 0", "1.5708 0 0"),
]


def urdf_text() -> str:
    """The arm with a hand and two sliding fingers: ten links on the chain, as in the public example."""
    names = ["base", *(f"link{i}" for i in range(1, 8)), "flange", "hand", "left", "right"]
    parts = [f'<link name="{name}"/>' for name in names]
    limit = '<limit lower="-2.9" upper="2.9" velocity="2" effort="80"/>'
    for i, (xyz, rpy) in enumerate(_JOINTS):
        parts.append(
            f'<joint name="joint{i + 1}" type="revolute"><parent link="{names[i]}"/><child link="{names[i + 1]}"/>'
            f'<origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="0 0 1"/>{limit}</joint>'
        )
    for name, parent, child, z in (("tool", "link7", "flange", 0.107), ("mount", "flange", "hand", 0.0)):
        parts.append(
            f'<joint name="{name}" type="fixed"><parent link="{parent}"/><child link="{child}"/>'
            f'<origin xyz="0 0 {z}"/></joint>'
        )
    for side, sign in (("left", 1), ("right", -1)):
        parts.append(
            f'<joint name="finger_{side}" type="prismatic"><parent link="hand"/><child link="{side}"/>'
            f'<origin xyz="0 0 0.0584"/><axis xyz="0 {sign} 0"/><limit lower="0" upper="0.04"/></joint>'
        )
    return f'<robot name="bench">{"".join(parts)}</robot>'


def motion(frames: int, dofs: int) -> np.ndarray:
    """A smooth wave through the arm's workspace, rad; fingers half open."""
    phase = np.linspace(0, 4 * np.pi, frames)[:, None] + np.arange(7)
    q = np.zeros((frames, dofs))
    q[:, :7] = np.array([0, 0.2, 0, -1.8, 0, 2.0, 0.8]) + 0.35 * np.sin(phase)
    q[:, 7:] = 0.02
    return q


def camera() -> tuple[np.ndarray, np.ndarray]:
    """K and T_camera_world of a camera 1.6 m in front of the arm."""
    K = np.array([[530.0, 0, 320], [0, 530, 240], [0, 0, 1]])
    E = np.array([[0.0, 1, 0, 0], [0, 0, -1, 0.45], [-1, 0, 0, 1.8], [0, 0, 0, 1]])
    return K, E


def measure(frames: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per frame of each side and the ratios; every side draws the same pixels (checked)."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the URDF library's own
        path = Path(folder) / "arm.urdf"
        path.write_text(urdf_text())
        robot: RobotSpec = read_urdf(path)
        import yourdfpy

        library = yourdfpy.URDF.load(str(path), load_meshes=False, build_scene_graph=True)
    gripper = robot.grippers[0]
    chain = list(robot.chain(gripper))
    names = [robot.links[i].name for i in chain]
    q, openness, (K, E) = motion(frames, len(robot.dof_names)), np.linspace(0, 1, frames), camera()
    canvas = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    poses = robot.forward_kinematics(q, np.eye(4))
    points, ee = np.ascontiguousarray(poses[:, chain][..., :3, 3]), np.ascontiguousarray(poses[:, chain[0]])

    def demo_style() -> int:
        total = 0
        for t in range(frames):
            library.update_cfg(q[t])
            links = [library.get_transform(name) for name in names]
            canvas[:] = 0
            oracle.draw(canvas, [T[:3, 3] for T in links], links[0], openness[t], K, E)
            total += int(canvas[::97].sum())
        return total

    def drawing_alone() -> int:
        total = 0
        for t in range(frames):
            canvas[:] = 0
            oracle.draw(canvas, points[t], ee[t], openness[t], K, E)
            total += int(canvas[::97].sum())
        return total

    def streamed(arm: ArmTrack) -> int:
        return sum(int(f[::97].sum()) for f in stream_skeleton([arm], CameraTrack(K, E, SIZE), reuse=True))

    def retake_from_joints() -> int:
        T = robot.forward_kinematics(q, np.eye(4))
        return streamed(ArmTrack(T[:, chain][..., :3, 3], T[:, chain[0]], openness))

    def retake_from_links() -> int:
        return streamed(ArmTrack(points, ee, openness))

    def retake_batch() -> int:
        return len(render_skeleton(points, ee, openness, K, E, SIZE))

    def checksum_alone() -> int:
        return sum(int(canvas[::97].sum()) for _ in range(frames))

    def bookkeeping() -> int:
        arm, track = ArmTrack(points, ee, openness), CameraTrack(K, E, SIZE)
        return sum(len(plan(arm, track, s, min(s + CHUNK, frames))) for s in range(0, frames, CHUNK))

    sides: dict[str, Callable[[], int]] = {
        "demo_style": demo_style,
        "drawing_alone": drawing_alone,
        "retake_from_joints": retake_from_joints,
        "retake_from_links": retake_from_links,
        "retake_batch": retake_batch,
        "bookkeeping": bookkeeping,
        "checksum": checksum_alone,
    }
    sums = {name: side() for name, side in sides.items()}  # warm-up, and the same pixels everywhere
    drawn = {sums[n] for n in ("demo_style", "drawing_alone", "retake_from_joints", "retake_from_links")}
    if len(drawn) != 1:
        raise SystemExit(f"bench: the sides do not draw the same pixels: {sums}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - started)
    for name in ("demo_style", "drawing_alone", "retake_from_joints", "retake_from_links"):
        times[name] = [t - c for t, c in zip(times[name], times["checksum"], strict=True)]

    def ratio(slow: str, fast: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True)), 2)

    per_frame = {name: round(min(values) / frames * 1e3, 4) for name, values in times.items() if name != "checksum"}
    return {
        "size": list(SIZE),
        "frames": frames,
        "rounds": rounds,
        "ms_per_frame": per_frame,
        "frames_per_s": round(1e3 / per_frame["retake_from_links"]),
        "times_faster_than_demo_style": ratio("demo_style", "retake_from_joints"),
        "times_faster_than_drawing_alone": ratio("drawing_alone", "retake_from_links"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    result = measure(options.frames, options.rounds)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
