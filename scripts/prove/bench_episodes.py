# SPDX-License-Identifier: Apache-2.0
"""Episodes of the fault bench: both demo robots, random scenes, two fixed cameras (front and side) and the wrist's."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pxr import Gf, Usd, UsdGeom

from retake.core.episode import Episode, open_episode
from retake.newton.preset import STAGES, load_preset
from retake.newton.run import capture
from retake.newton.scenario import build

ROBOTS = {"panda": "pick_place/scene.usda", "sixaxis": "sixaxis/scene.usda"}
_EYE, _AT = np.array([1.3, 0.95, 0.7]), np.array([0.42, 0.02, 0.2])


def side_stage(robot: str, folder: Path, can: bool = False) -> Path:
    """The robot's demo stage with a second fixed camera `/World/Side` layered over it, and maybe a can for the packet."""
    source = STAGES / ROBOTS[robot]
    path = folder / f"{robot}_side.usda"
    stage = Usd.Stage.CreateNew(str(path))
    stage.GetRootLayer().subLayerPaths.append(str(source))
    stage.SetMetadata("upAxis", "Z")
    stage.SetMetadata("metersPerUnit", 1.0)
    stage.SetDefaultPrim(stage.GetPrimAtPath("/World"))
    camera = UsdGeom.Camera.Define(stage, "/World/Side")
    back = (_EYE - _AT) / np.linalg.norm(_EYE - _AT)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    rows = np.eye(4)
    rows[:3, :3] = np.stack([right, np.cross(back, right), back])
    rows[3, :3] = _EYE
    camera.AddTransformOp().Set(Gf.Matrix4d(rows.tolist()))
    camera.GetFocalLengthAttr().Set(24.0)
    camera.GetHorizontalApertureAttr().Set(26.5)
    camera.GetVerticalApertureAttr().Set(19.875)
    camera.GetClippingRangeAttr().Set(Gf.Vec2f(0.05, 100))
    if can:
        _make_can(stage)
    stage.GetRootLayer().Save()
    return path


def _make_can(stage: Usd.Stage, radius: float = 0.027, height: float = 0.12, sides: int = 32) -> None:
    """The packet becomes an upright cylinder (metres; physics sees the box around it)."""
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    points = np.concatenate([np.c_[ring, np.full(sides, z)] for z in (-height / 2, height / 2)])
    k = np.arange(sides)
    walls = np.stack([k, (k + 1) % sides, (k + 1) % sides + sides, k + sides], 1)
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/World/Packet/visual"))
    mesh.GetPointsAttr().Set(points.astype(np.float32))
    mesh.GetFaceVertexCountsAttr().Set([4] * sides + [sides] * 2)
    mesh.GetFaceVertexIndicesAttr().Set([*walls.ravel().tolist(), *k[::-1].tolist(), *(k + sides).tolist()])
    mesh.GetPrim().GetAttribute("primvars:st").Block()
    mesh.GetExtentAttr().Set([Gf.Vec3f(-radius, -radius, -height / 2), Gf.Vec3f(radius, radius, height / 2)])
    box = stage.GetPrimAtPath("/World/Packet/collision")
    box.GetAttribute("xformOp:scale").Set(Gf.Vec3f(2 * radius, 2 * radius, height))


CANS = (("panda", 5), ("sixaxis", 5), ("panda", 9))
"""Robots and seeds of the episodes that move a can."""


def overrides(seed: int) -> dict[str, Any]:
    """Cameras, and for odd seeds a higher drop than the demo's."""
    drop = [0.03, 0.08] if seed % 2 == 0 else [0.08, 0.18]
    return {
        "scenario": "pick_place",
        "task": "pick up the packet and drop it in the tray",
        "object": "packet",
        "target": "tray",
        "cameras": [
            {"name": "front", "size": [640, 480], "prim": "/World/Camera"},
            {"name": "side", "size": [640, 480], "prim": "/World/Side"},
        ],
        "randomise": {"drop_height_m": drop},
    }


def bench_episode(folder: Path, robot: str, seed: int) -> Episode:
    """The episode of a robot and seed, captured on first use."""
    path = folder / f"{robot}_{seed}"
    if not (path / "complete.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        with tempfile.TemporaryDirectory() as temporary:
            stage = side_stage(robot, Path(temporary), (robot, seed) in CANS)
            return capture(path, preset="short", seed=seed, stage=stage, overrides=overrides(seed))
    return open_episode(path)


def bench_stage(robot: str, seed: int, folder: Path) -> Usd.Stage:
    """The stage of an episode, varied as it was when it was captured."""
    preset = load_preset("short", overrides(seed), own_stage=True)
    return build(preset, seed, side_stage(robot, folder, (robot, seed) in CANS)).stage


if __name__ == "__main__":
    import sys

    for name in ROBOTS:
        for number in range(int(sys.argv[2]), int(sys.argv[3])):
            print(bench_episode(Path(sys.argv[1]), name, number).path, flush=True)
