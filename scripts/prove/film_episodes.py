# SPDX-License-Identifier: Apache-2.0
"""Episodes of the painter bench: both demo robots; front, side, wrist and travelling camera; every second episode has
two bystanders (one like the packet) and a cabinet with a drawer that stays shut.

The travelling camera is no prim: its path is written per frame, as a capture rig's would be.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_episodes import side_stage
from pxr import Gf, Usd, UsdGeom, UsdPhysics
from zoo_episodes import ROBOTS as ZOO_ROBOTS
from zoo_episodes import zoo_episode, zoo_scene

from retake.core.episode import Episode, EpisodeWriter, open_episode
from retake.newton.preset import Preset, load_preset
from retake.newton.renderer import Renderer, instance_map, sun_direction
from retake.newton.run import make_header, simulate
from retake.newton.scenario import Scenario, build
from retake.newton.simulator import Simulator
from retake.usd.camera import StageCamera
from retake.usd.stage import open_stage

WRIST = {"panda": "/World/Panda/panda_hand/wrist_camera", "sixaxis": "/World/SixAxis/palm/wrist_camera"}
LARGE = {
    24: (1280, 720), 34: (1920, 1080), 236: (1280, 720), 238: (1920, 1080),
    **dict.fromkeys((51, 52, 65, 67, 69, 71, 74, 76, 153, 154, 155, 156, 157, 158), (320, 240)),
}  # fmt: skip
"""Seeds whose cameras have another size."""
ONLY = {
    33: ("front", "wrist"), 34: ("front",), 41: ("front", "wrist"), 42: ("side", "wrist"), 43: ("front", "side"),
    44: ("front", "side"), 45: ("front", "wrist"), 46: ("front", "side"),
    51: ("front", "wrist"), 52: ("front", "wrist"), **dict.fromkeys((153, 154, 155, 156, 157, 158), ("front", "wrist")),
    61: ("front", "wrist"), 63: ("side", "wrist"), 74: ("front", "moving"), 76: ("side", "moving"),
    **dict.fromkeys((65, 67, 69, 71), ("front", "side", "wrist")),
    201: ("front", "wrist"), 203: ("side", "wrist"), 205: ("front", "wrist"), 207: ("side", "wrist"),
    209: ("front", "moving"), 210: ("side", "moving"),
    **dict.fromkeys((221, 225, 230), ("front", "wrist")), **dict.fromkeys((223, 227), ("side", "wrist")),
    **dict.fromkeys((232, 234), ("moving",)), **dict.fromkeys((241, 243), ("wrist",)), **dict.fromkeys((236, 238), ("front",)),
    **dict.fromkeys(range(251, 260), ("front", "side")),
    **dict.fromkeys(range(261, 268), ("front", "side")), **dict.fromkeys(range(271, 281), ("wrist",)),
    **dict.fromkeys(range(281, 285), ("front", "side")), **dict.fromkeys((*range(301, 313), *range(321, 332)), ("front", "side")),
}  # fmt: skip
"""Seeds that are recorded by some of the cameras alone."""
TRAVEL_M = 0.25
"""Way of the travelling camera from the first to the last frame."""


def busy(seed: int) -> bool:
    """Whether an episode has bystanders and a cabinet."""
    return seed % 2 == 1


def film_preset(robot: str, seed: int) -> Preset:
    """What is captured: the demo's task, four cameras, and for every second pair of seeds a higher drop."""
    prims = {"front": "/World/Camera", "side": "/World/Side", "wrist": WRIST[robot], "moving": "/World/Camera"}
    size = list(LARGE.get(seed, (640, 480)))
    return load_preset(
        "short",
        {
            "scenario": "pick_place",
            "task": "pick up the packet and drop it in the tray",
            "object": "packet",
            "target": "tray",
            "cameras": [{"name": n, "size": size, "prim": prims[n]} for n in ONLY.get(seed, tuple(prims))],
            "randomise": {"drop_height_m": [0.03, 0.08] if seed // 2 % 2 == 0 else [0.08, 0.16]},
        },
        own_stage=True,
    )


def film_stage(robot: str, seed: int, folder: Path) -> Path:
    """The robot's demo stage with a side camera and, for busy episodes, bystanders and a cabinet."""
    path = side_stage(robot, folder)
    if busy(seed):
        stage = Usd.Stage.Open(str(path))
        _bystander(stage, "Brick", (0.36, 0.30), (0.05, 0.07, 0.09), (0.75, 0.62, 0.2))
        _bystander(stage, "Cube", (0.66, 0.24), (0.06, 0.06, 0.06), (0.1, 0.45, 0.3))
        _cabinet(stage, (0.27, -0.43))
        stage.GetRootLayer().Save()
    return path


def _cube(stage: Usd.Stage, path: str, at: tuple, size: tuple, colour: tuple, *, collides: bool = True) -> Usd.Prim:
    cube = UsdGeom.Cube.Define(stage, path)
    cube.CreateSizeAttr(1.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(*at))
    cube.AddScaleOp().Set(Gf.Vec3f(*size))
    cube.CreateDisplayColorAttr([Gf.Vec3f(*colour)])
    if collides:
        UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    return cube.GetPrim()


def _body(stage: Usd.Stage, path: str, at: tuple, mass: float) -> Usd.Prim:
    xform = UsdGeom.Xform.Define(stage, path)
    xform.AddTranslateOp().Set(Gf.Vec3d(*at))
    UsdPhysics.RigidBodyAPI.Apply(xform.GetPrim())
    UsdPhysics.MassAPI.Apply(xform.GetPrim()).CreateMassAttr(mass)
    return xform.GetPrim()


def _bystander(stage: Usd.Stage, name: str, at: tuple, size: tuple, colour: tuple) -> None:
    """A free box that stands on the table and is never touched."""
    _body(stage, f"/World/{name}", (*at, size[2] / 2 + 0.0005), 0.2)
    _cube(stage, f"/World/{name}/visual", (0, 0, 0), size, colour)


def _cabinet(stage: Usd.Stage, at: tuple) -> None:
    """A box on the table with one drawer on a prismatic joint, driven to stay shut; it opens along +x."""
    root = UsdGeom.Xform.Define(stage, "/World/Cabinet")
    UsdPhysics.ArticulationRootAPI.Apply(root.GetPrim())
    base = _body(stage, "/World/Cabinet/base", (*at, 0.0), 5.0)
    for name, place, size in (
        ("floor", (0, 0, 0.005), (0.2, 0.22, 0.01)), ("top", (0, 0, 0.135), (0.2, 0.22, 0.01)),
        ("left", (0, -0.105, 0.07), (0.2, 0.01, 0.12)), ("right", (0, 0.105, 0.07), (0.2, 0.01, 0.12)),
        ("back", (-0.095, 0, 0.07), (0.01, 0.2, 0.12)),
    ):  # fmt: skip
        _cube(stage, f"/World/Cabinet/base/{name}", place, size, (0.45, 0.4, 0.36), collides=False)
    drawer = _body(stage, "/World/Cabinet/drawer", (*at, 0.07), 0.5)
    for name, place, size in (
        ("front", (0.105, 0, 0), (0.012, 0.2, 0.115)), ("floor", (0.01, 0, -0.045), (0.17, 0.19, 0.008)),
        ("handle", (0.12, 0, 0.0), (0.02, 0.07, 0.015)),
    ):  # fmt: skip
        shade = (0.2, 0.2, 0.22) if name == "handle" else (0.6, 0.55, 0.5)
        _cube(stage, f"/World/Cabinet/drawer/{name}", place, size, shade, collides=False)
    fixed = UsdPhysics.FixedJoint.Define(stage, "/World/Cabinet/anchor")
    fixed.CreateBody1Rel().SetTargets([base.GetPath()])
    fixed.CreateLocalPos0Attr(Gf.Vec3f(*at, 0.0))
    slide = UsdPhysics.PrismaticJoint.Define(stage, "/World/Cabinet/slide")
    slide.CreateBody0Rel().SetTargets([base.GetPath()])
    slide.CreateBody1Rel().SetTargets([drawer.GetPath()])
    slide.CreateAxisAttr("X")
    slide.CreateLocalPos0Attr(Gf.Vec3f(0, 0, 0.07))
    slide.CreateLowerLimitAttr(0.0)
    slide.CreateUpperLimitAttr(0.15)
    drive = UsdPhysics.DriveAPI.Apply(slide.GetPrim(), "linear")
    drive.CreateStiffnessAttr(2000.0)
    drive.CreateDampingAttr(200.0)
    drive.CreateTargetPositionAttr(0.0)
    UsdPhysics.MassAPI(base).CreateDiagonalInertiaAttr(Gf.Vec3f(0.03, 0.03, 0.03))
    UsdPhysics.MassAPI(drawer).CreateDiagonalInertiaAttr(Gf.Vec3f(0.004, 0.004, 0.004))


def travelling(camera: StageCamera, share: float) -> StageCamera:
    """A fixed camera moved along an arc (aside, a little down), still looking where it looked; share 0..1 of the way."""
    T = camera.T_world_camera.copy()
    focus = T[:3, 3] + 1.3 * T[:3, 2]
    ease = 0.5 - 0.5 * np.cos(np.pi * share)
    T[:3, 3] += TRAVEL_M * (ease - 0.5) * T[:3, 0] + 0.06 * np.sin(2 * np.pi * share) * T[:3, 1]
    forward = (focus - T[:3, 3]) / np.linalg.norm(focus - T[:3, 3])
    right = np.cross(T[:3, 1], forward)
    right /= np.linalg.norm(right)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    return replace(camera, T_world_camera=T)


def scenario_of(robot: str, seed: int, folder: Path) -> tuple[Preset, Scenario]:
    """Preset and scenario of an episode (the stage varied as it was recorded)."""
    preset = film_preset(robot, seed)
    return preset, build(preset, seed, film_stage(robot, seed, folder))


def stage_of(robot: str, seed: int, folder: Path) -> Usd.Stage:
    """The stage of an episode, varied as it was recorded; files that it needs lie in `folder`."""
    if robot in ZOO_ROBOTS:
        zoo_scene(robot, seed, folder / "scene.usda")
        return open_stage(folder / "scene.usda")
    return scenario_of(robot, seed, folder)[1].stage


def film_episode(folder: Path, robot: str, seed: int) -> Episode:
    """The episode of a robot and seed, recorded on first use. Raises FileNotFoundError for a robot that `make zoo` did not
    convert."""
    if robot in ZOO_ROBOTS:
        episode = zoo_episode(folder, robot, seed, (640, 480))
        if episode is None:
            raise FileNotFoundError(f"the zoo has no {robot} here: scripts/zoo/make.py {robot}")
        return episode
    path = folder / f"{robot}_{seed}"
    if not (path / "complete.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        with tempfile.TemporaryDirectory() as temporary:
            preset, scenario = scenario_of(robot, seed, Path(temporary))
            record(path, preset, scenario, seed)
    return open_episode(path)


def record(path: Path, preset: Preset, scenario: Scenario, seed: int) -> None:
    """Simulate and record a scenario; a camera named `moving` travels."""
    simulator = Simulator(scenario.stage, scenario.robots, preset.dt_s, friction=scenario.variation.friction)
    instances = instance_map(
        scenario.stage, simulator.shape_paths, scenario.robots, tuple(o.spec for o in scenario.objects)
    )
    header = make_header(preset, scenario, instances, seed)
    header = replace(
        header, cameras=tuple(replace(c, static=False) if c.name == "moving" else c for c in header.cameras)
    )
    cameras = tuple(scenario.cameras.values())
    names = list(scenario.cameras)
    renderer = Renderer(simulator.builder, cameras, instances, preset.lighting, sun_direction(scenario.stage))
    with EpisodeWriter(path, header) as writer:
        for index, (measurement, frame) in enumerate(simulate(simulator, scenario, preset)):
            share = index / (preset.frames - 1)
            renderer.cameras = tuple(
                travelling(c, share) if name == "moving" else c for name, c in zip(names, cameras, strict=True)
            )
            writer.append(frame(renderer.render(measurement.body_q)))
        writer.finish()


if __name__ == "__main__":
    import sys

    for number in map(int, sys.argv[2:]):
        for name in WRIST:
            print(film_episode(Path(sys.argv[1]), name, number).path, flush=True)
