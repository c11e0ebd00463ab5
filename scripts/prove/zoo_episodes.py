# SPDX-License-Identifier: Apache-2.0
"""Episodes of converted robots (`make zoo`) for composite takes: a slow sweep of every joint beside a packet, seen by a
fixed camera and by one on the hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.episode import Episode, open_episode
from retake.core.errors import InputError
from retake.core.geometry import CV_FROM_USD
from retake.newton.describe import scene_around
from retake.newton.run import capture
from retake.usd.articulation import Articulation, find_articulations
from retake.usd.stage import open_stage

ROOT = Path(__file__).resolve().parents[2]
ZOO = Path(os.environ.get("RETAKE_ZOO", ROOT / ".zoo" / "robots"))
ROBOTS = ("ur5_gripper", "so100", "kinova_jaco")
FRAMES, FPS, SIZE = 49, 15, (320, 240)


def zoo_episode(folder: Path, robot: str, seed: int, size: tuple[int, int] = SIZE) -> Episode | None:
    """The episode of a robot and seed, recorded on first use; None where the robot was not converted."""
    path = folder / f"{robot}_{seed}"
    if (path / "complete.json").exists():
        return open_episode(path)
    if not (ZOO / robot / "converted.json").is_file():
        return None
    shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        scene, robots = zoo_scene(robot, seed, Path(temporary) / "scene.usda")
        motion = Path(temporary) / "motion.csv"
        _sweep(robots, motion, seed)
        cameras = [{"name": n, "size": list(size), "prim": p} for n, p in scene]
        for drives in ("auto", "fill"):
            try:
                return capture(
                    path, stage=Path(temporary) / "scene.usda", seed=seed,
                    overrides={"motion_file": str(motion), "fps": FPS, "drives": drives, "cameras": cameras},
                )  # fmt: skip
            except InputError as error:
                if drives == "fill" or "drives=fill" not in str(error):
                    raise
    return None


def zoo_scene(name: str, seed: int, out: Path) -> tuple[list[tuple[str, str]], tuple[Articulation, ...]]:
    """The robot on a floor with a packet and a tray beside it; names and prims of both cameras, and the robots."""
    robot = ZOO / name
    scene_around(
        robot / "stage" / json.loads((robot / "converted.json").read_text("utf-8"))["stage"], out, model=robot.name
    )
    stage = Usd.Stage.Open(str(out))
    robots = find_articulations(open_stage(out)).robots
    rng = np.random.default_rng([seed, 5])
    ends = [r.spec for r in robots if r.spec.grippers]
    reach = 0.25 if not ends else 0.6 * float(np.ptp(ends[0].forward_kinematics(
        robots[0].initial_position[None], np.eye(4))[0, :, :3, 3], axis=0).max())  # fmt: skip
    side = float(np.clip(reach * 0.2, 0.04, 0.12))
    for thing, size, colour in (("Packet", (side, 1.3 * side, 1.8 * side), (0.75, 0.2, 0.15)),
                               ("Tray", (2.5 * side, 3 * side, 0.3 * side), (0.15, 0.35, 0.6))):  # fmt: skip
        angle, far = rng.uniform(-1.2, 1.2), reach * rng.uniform(1.0, 1.5)
        xform = UsdGeom.Xform.Define(stage, f"/World/{thing}")
        xform.AddTranslateOp().Set(Gf.Vec3d(far * np.cos(angle), far * np.sin(angle), size[2] / 2 + 0.0005))
        UsdPhysics.RigidBodyAPI.Apply(xform.GetPrim())
        UsdPhysics.MassAPI.Apply(xform.GetPrim()).CreateMassAttr(0.2)
        cube = UsdGeom.Cube.Define(stage, f"/World/{thing}/visual")
        cube.CreateSizeAttr(1.0)
        cube.AddScaleOp().Set(Gf.Vec3f(*size))
        cube.CreateDisplayColorAttr([Gf.Vec3f(*colour)])
        UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    cameras = [("front", "/World/Camera")]
    if ends:
        grip = ends[0].grippers[0]
        link = ends[0].links[ends[0].link_index(grip.ee_link)].prim_path
        back = np.eye(4)
        # Beside the hand, so that the fingers and what they point at show.
        back[:3, 3] = [2.0 * side, 0.0, -1.0 * side]
        T = grip.T_link_ee @ back @ CV_FROM_USD
        camera = UsdGeom.Camera.Define(stage, f"{link}/wrist_camera")
        camera.AddTransformOp().Set(Gf.Matrix4d(T.T.tolist()))
        camera.CreateFocalLengthAttr(18.0)
        camera.CreateHorizontalApertureAttr(26.5)
        camera.CreateVerticalApertureAttr(19.875)
        camera.CreateClippingRangeAttr(Gf.Vec2f(0.01, 100))
        cameras.append(("wrist", f"{link}/wrist_camera"))
    stage.GetRootLayer().Save()
    return cameras, robots


def _sweep(robots: tuple[Articulation, ...], file: Path, seed: int) -> None:
    """Every leading joint swings by up to 0.35 rad (2 cm) and at most a fifth of its range, each at its own pace."""
    rng = np.random.default_rng([seed, 6])
    time_s = np.arange(FRAMES) / FPS
    names, columns = ["time_s"], [time_s]
    for robot in robots:
        for dof in robot.spec.leading_dofs:
            joint = robot.spec.dof_joints[dof]
            span = joint.upper - joint.lower
            size = min(0.35 if joint.kind == "revolute" else 0.02, span / 5 if np.isfinite(span) else np.inf)
            low = joint.lower + size if np.isfinite(joint.lower) else -np.inf
            high = joint.upper - size if np.isfinite(joint.upper) else np.inf
            middle = float(np.clip(robot.initial_position[dof], low, high))
            swing = np.sin(2 * np.pi * rng.uniform(0.15, 0.35) * time_s) * rng.choice([-1, 1])
            names.append(robot.dof_paths[dof])
            columns.append(middle + size * swing)
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(names)
        rows.writerows(np.stack(columns, 1).tolist())


if __name__ == "__main__":
    import sys

    for name in ROBOTS:
        for number in map(int, sys.argv[2:]):
            made = zoo_episode(Path(sys.argv[1]), name, number)
            print(name, number, made and made.path, flush=True)
