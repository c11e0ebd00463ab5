# SPDX-License-Identifier: Apache-2.0
"""From a preset, a seed and a stage file to everything a capture runs on: varied stage, robots, objects, cameras, motion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pxr import Usd

from retake.core.ends import beside, declare, load_declarations
from retake.core.errors import InputError, StageError, unknown_name
from retake.newton import pick_place, variation
from retake.newton.describe import described
from retake.newton.motion import Motion, hold, replay
from retake.newton.preset import CameraRequest, Preset, stage_path
from retake.newton.preset_values import is_description
from retake.newton.variation import Variation
from retake.usd.articulation import Articulation, choose_articulations, find_articulations
from retake.usd.bodies import StageObject, find_objects, read_object
from retake.usd.camera import StageCamera, camera_prim, read_animated_camera, usable_cameras
from retake.usd.si import si_stage
from retake.usd.stage import ensure_physics_scene, label_of, missing_assets, name_stage, open_stage, stage_sha256
from retake.usd.units import StageUnits


@dataclass(frozen=True)
class Scenario:
    """A scene ready to simulate."""

    stage: Usd.Stage
    """Metres and kilograms, with the variation in its session layer."""
    stage_sha256: str
    robots: tuple[Articulation, ...]
    objects: tuple[StageObject, ...]
    """Rigid objects, then the task's target (not movable)."""
    cameras: dict[str, StageCamera]
    motion: Motion
    variation: Variation
    goal: dict[str, Any] | None
    """Where the object's centre must end (the episode check reads it); None where the scenario has no task."""
    licence: str
    """Licence of the stage's assets as the stage states it; empty where it states none."""
    notes: tuple[str, ...] = ()
    """What of the stage was left out, and why."""


def build(preset: Preset, seed: int, stage_file: Path | None = None) -> Scenario:
    """Open, vary, read and plan. Raises StageError or InputError naming what is missing or out of reach."""
    file = stage_path(preset) if stage_file is None else Path(stage_file)
    usd = described(file) if is_description(file) else file
    stage = si_stage(name_stage(open_stage(usd), file))
    notes = (*missing_assets(usd), *ensure_physics_scene(stage))
    found = find_articulations(stage)
    robots, bodies = choose_articulations(stage, found), find_objects(stage)
    if declared := Path(preset.robot_file) if preset.robot_file else beside(file):
        specs = declare([robot.spec for robot in robots], load_declarations(declared))
        robots = tuple(replace(robot, spec=spec) for robot, spec in zip(robots, specs, strict=True))
    robots, moved = _within_limits(robots)
    objects, notes = bodies.objects, (*notes, *found.notes, *bodies.notes, *moved)
    task = preset.scenario == "pick_place"
    drawn = variation.sample(preset.randomise, seed) if task else Variation(friction=_fixed_friction(preset))
    target: StageObject | None = None
    chosen: StageObject | None = None
    if task:
        chosen = _choose_object(objects, preset.object)
        prim = _find_target(stage, preset.target, chosen)
        variation.apply(stage, drawn, chosen, prim)
        objects = find_objects(stage).objects
        chosen = next(o for o in objects if o.spec.prim_path == chosen.spec.prim_path)
        target = read_object(prim, StageUnits.of(stage), movable=False)
    usable, more = usable_cameras(stage) if any(not r.prim for r in preset.cameras) else ((), ())
    cameras = {r.name: camera for r in preset.cameras if (camera := _camera(stage, r, usable, preset)) is not None}
    if preset.cameras and not cameras:
        raise StageError(
            f"stage {file} has cameras, but none that the preset asks for: {[c.name for c in preset.cameras]}"
        )
    goal = None
    if chosen is not None and target is not None:
        robot = _choose_robot(robots, preset.robot)
        plan = pick_place.Task(robots, robot, chosen, target, drawn.drop_height_m, preset.phases, preset.duration_s)
        motion = pick_place.plan(stage, plan)
        goal = _goal(chosen, target)
        # The robot starts with its fingers where the plan has them.
        start = motion.paths[robot].q[0]
        robots = tuple(replace(r, initial_position=start) if i == robot else r for i, r in enumerate(robots))
        objects = (*objects, target)
    elif preset.scenario == "replay":
        motion = replay(robots, Path(preset.motion_file), preset.robot)
        robots = tuple(replace(r, initial_position=motion.paths[i].q[0]) for i, r in enumerate(robots))
    else:
        motion = hold(robots)
    licence = str(stage.GetRootLayer().customLayerData.get("licence", ""))
    return Scenario(stage, stage_sha256(usd), robots, objects, cameras, motion, drawn, goal, licence, (*notes, *more))


def _within_limits(robots: tuple[Articulation, ...]) -> tuple[tuple[Articulation, ...], tuple[str, ...]]:
    """Robots whose joints start within their limits; a note on those that the stage starts outside."""
    out, notes = [], []
    for robot in robots:
        joints = robot.spec.dof_joints
        start = np.clip(robot.initial_position, [j.lower for j in joints], [j.upper for j in joints])
        moved = [j.name for j, a, b in zip(joints, start, robot.initial_position, strict=True) if abs(a - b) > 1e-4]
        if moved:
            names = ", ".join(moved[:6]) + (f" and {len(moved) - 6} more" if len(moved) > 6 else "")
            notes.append(
                f"robot {robot.spec.name!r}: {names} start outside their limits; they start at the nearest limit"
            )
        out.append(replace(robot, initial_position=start) if moved else robot)
    return tuple(out), tuple(notes)


def _fixed_friction(preset: Preset) -> float | None:
    value = preset.randomise.get("friction")
    return float(value) if isinstance(value, int | float) else None


def _choose_object(objects: tuple[StageObject, ...], name: str) -> StageObject:
    if not objects:
        raise StageError(
            "the stage has no rigid object to pick; expected a prim with PhysicsRigidBodyAPI beside the robot"
        )
    if not name:
        return objects[0]
    for obj in objects:
        if name in (obj.spec.name, obj.spec.label, obj.spec.prim_path):
            return obj
    raise InputError(unknown_name("object", name, (o.spec.name for o in objects)))


def _choose_robot(robots: tuple[Articulation, ...], name: str) -> int:
    for i, robot in enumerate(robots):
        if name and name in (robot.spec.name, robot.spec.prim_path):
            return i
    if name:
        raise InputError(unknown_name("robot", name, (robot.spec.name for robot in robots)))
    return next((i for i, robot in enumerate(robots) if any(g.finger_joints for g in robot.spec.grippers)), 0)


def _find_target(stage: Usd.Stage, name: str, obj: StageObject) -> Usd.Prim:
    """The prim to drop into, by name, label or path."""
    candidates = []
    for prim in stage.Traverse():
        path = str(prim.GetPath())
        if path == obj.spec.prim_path or path.startswith(obj.spec.prim_path + "/") or not prim.IsA("Xformable"):
            continue
        if name in (prim.GetName(), label_of(prim), path):
            return prim
        if prim.GetParent() == stage.GetDefaultPrim():
            candidates.append(prim.GetName())
    raise StageError(unknown_name("target prim", name, candidates))


def _camera(
    stage: Usd.Stage, request: CameraRequest, usable: tuple[Usd.Prim, ...], preset: Preset
) -> StageCamera | None:
    for prim in (camera_prim(stage, request.prim),) if request.prim else usable:
        camera = read_animated_camera(prim, request.size, preset.fps, preset.frames)
        if request.prim:
            return camera
        if (camera.body_path is not None) == (request.mount == "body"):
            return camera
    if request.optional:
        return None
    raise StageError(
        f"the stage has no {'camera on a rigid body' if request.mount == 'body' else 'fixed camera'} for {request.name!r}; "
        f"its cameras: {', '.join(str(p.GetPath()) for p in usable)}"
    )


def _goal(obj: StageObject, target: StageObject) -> dict[str, Any]:
    """World-aligned box over the target in which the object's centre must end: inside its rim, resting on it."""
    T, size = target.T_world_object, target.spec.size_m
    extent = abs(T[:3, :3]) @ size
    centre = T[:3, :3] @ target.spec.center_m + T[:3, 3]
    floor = float(centre[2] - extent[2] / 2)
    # Lying or standing, the centre is at most half the object's diagonal above the target's floor.
    height = float(sum(s * s for s in obj.spec.size_m) ** 0.5 / 2 + 0.02)
    return {
        "object": obj.spec.name,
        "center_m": [float(centre[0]), float(centre[1]), floor + height / 2],
        "size_m": [float(extent[0]), float(extent[1]), height],
    }
