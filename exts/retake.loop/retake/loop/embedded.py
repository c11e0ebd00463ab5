# SPDX-License-Identifier: Apache-2.0
"""The embedded simulator as an environment: `retake.newton` simulates and draws, a policy commands.

An action is the target that holds when the next frame is measured, as in recorded episodes; targets move there in a straight
line over the physics steps between. Nothing of a look reaches the simulator: only the renderer's copy of the scene is dressed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64, UInt8
from retake.core.episode import CameraFrame, EpisodeHeader
from retake.core.episode.events import holders
from retake.core.errors import InputError, unknown_name
from retake.core.export.layouts import laid_out
from retake.core.export.records import ACTION, IMAGE, STATE
from retake.core.export.vectors import build_schema, joint_targets, state_vector
from retake.core.painter.dresser import Dresser
from retake.core.painter.procedural import ProceduralBackend
from retake.core.robustness.policy import Observation
from retake.core.variants.base import SourceFrame
from retake.core.variants.worlds import load_catalogue
from retake.loop.dressing import dressed_camera, dressed_lighting, dressed_scene, dressed_sun
from retake.loop.environment import Facts, Goal, Moment, Unstable
from retake.loop.looks import UNCHANGED, Look
from retake.newton import engine
from retake.newton.preset import fingerprint, load_preset
from retake.newton.renderer import InstanceMap, Renderer, instance_map, sun_direction
from retake.newton.run import driven, make_header
from retake.newton.scenario import Scenario, build
from retake.newton.simulator import Measurement, Simulator

LAYOUTS = ("full", "arm+openness")
SETTLE_S = 0.4
"""Time that a script which stops early is given to come to rest."""


class EmbeddedEnvironment:
    """A preset (with overrides, or a stage of the user's own) that a policy acts in.

    `layout`: of state and action, as an export's (`full`, `arm+openness`); an openness then moves the fingers.
    `ends`: phase of the script at whose end its expert stops (the task `reach`); empty = never.
    Raises InputError and StageError as `retake capture` does.
    """

    def __init__(
        self,
        preset: str = "short",
        overrides: Mapping[str, Any] | None = None,
        stage: Path | None = None,
        *,
        ends: str = "",
        layout: str = "full",
    ) -> None:
        if layout not in LAYOUTS:
            raise InputError(unknown_name("layout of state and action in closed loop", layout, LAYOUTS))
        self._settings = load_preset(preset, overrides or {}, own_stage=stage is not None).lasting(overrides or {})
        self._stage, self._ends, self._layout = stage, ends, layout
        self._content = fingerprint(preset, overrides or {}, stage)
        self._facts: Facts | None = None
        self._seed, self._frame = 0, 0
        self._built: int | None = None
        """Seed whose scene is there: studies show one seed in look after look, and a scene takes as long as a rollout."""
        self._dressers: dict[str, Dresser] = {}

    @property
    def facts(self) -> Facts:
        """Known once the stage is read: a first rollout is begun where none was."""
        if self._facts is None:
            self.reset(0, Look(UNCHANGED))
        assert self._facts is not None
        return self._facts

    @property
    def goal(self) -> Goal | None:
        """Of the rollout that runs."""
        return self._goal

    @property
    def moment(self) -> Moment:
        """The state that the last observation shows."""
        return self._moment

    @property
    def header(self) -> EpisodeHeader:
        """What an Episode of this rollout would state."""
        return self._header

    def reset(self, seed: int, look: Look) -> Observation:
        """Build the scene of a seed (or take it back to its beginning), dress it, and show its first frame."""
        if self._built != seed:
            self._built = None
            self._build(seed)
            self._built = seed
        else:
            self._simulator.rewind()
        self._seed, self._frame = seed, 0
        self._target = tuple(robot.initial_position.copy() for robot in self._scenario.robots)
        self._facts = self._read_facts()
        measurement = self._simulator.measure()
        self._moment = self._read_moment(measurement)
        self._dress(look, self._instances, measurement)
        return self._observe(measurement)

    def _build(self, seed: int) -> None:
        """The scene of a seed: stage, script, simulation, and what of them never changes."""
        settings = self._settings
        scenario = build(settings, seed, self._stage)
        if not scenario.cameras:
            raise InputError("there is no camera, so a policy sees nothing; name one, e.g. --camera front=128x96")
        self._simulator = Simulator(
            scenario.stage, scenario.robots, settings.dt_s, friction=scenario.variation.friction,
            drives=settings.drive_request, named=scenario.motion.named,
        )  # fmt: skip
        self._scenario = scenario = driven(scenario, self._simulator)
        self._instances = instance_map(
            scenario.stage, self._simulator.shape_paths, scenario.robots, tuple(o.spec for o in scenario.objects)
        )
        self._header = make_header(settings, scenario, self._instances, seed)
        self._links = [
            [self._simulator.body_index(link.prim_path) for link in robot.spec.links] for robot in scenario.robots
        ]
        self._bodies = [
            self._simulator.body_index(o.spec.prim_path) if o.spec.movable else -1 for o in scenario.objects
        ]
        if self._ends and self._ends not in {phase.name for phase in scenario.motion.phases}:
            raise InputError(
                f"the task ends with the script's {self._ends!r}, and this scenario has no script; name the object and the "
                "target (--object, --target), or judge with a function of your own (--task file.py:function)"
            )
        self._hand = _working_hand(scenario, settings.robot)
        self._goal = _goal(scenario, self._hand, self._ends or "approach")
        full = build_schema(self._header, {IMAGE + n: c.size for n, c in scenario.cameras.items()})
        self._schema = laid_out(full, self._header, self._layout)
        self._kept = {
            key: [full.vectors[key].names.index(name) for name in self._schema.vectors[key].names]
            for key in (STATE, ACTION)
        }
        self._full_width = full.vectors[ACTION].width
        self._openness = [s for s in full.action_slices if s.kind == "gripper"]

    def step(self, action: Float64[np.ndarray, "A"]) -> Observation:
        """Targets move in a straight line from the last ones, within the joints' limits."""
        width = len(self._schema.vectors[ACTION].names)
        given = np.asarray(action, np.float64)
        if given.shape != (width,) or not np.isfinite(given).all():
            raise InputError(f"an action is {width} finite numbers here; found an array {given.shape}")
        action_entries = np.zeros(self._full_width)
        action_entries[self._kept[ACTION]] = given
        wanted = joint_targets(self._header, action_entries, self._target)
        if self._layout != "full":
            self._open_hands(wanted, action_entries)
        count = self._settings.steps_per_frame
        before, after = self._target, []
        for robot, q in zip(self._header.robots, wanted, strict=True):
            joints = robot.dof_joints
            after.append(np.clip(q, [j.lower for j in joints], [j.upper for j in joints]))
        try:
            for k in range(1, count + 1):
                for robot, (a, b) in enumerate(zip(before, after, strict=True)):
                    self._simulator.command(robot, a + (b - a) * (k / count))
                self._simulator.step()
        except InputError as error:
            raise Unstable(str(error)) from error
        self._target = tuple(after)
        self._frame += 1
        measurement = self._simulator.measure()
        self._moment = self._read_moment(measurement)
        return self._observe(measurement)

    def expert(self) -> Float64[np.ndarray, "A"]:
        """The script's target for the next frame."""
        motion = self._scenario.motion
        if motion.settings.get("scenario") == "hold":
            raise InputError(
                "this scenario has no script to follow: the robots hold; name the object and the target (--object, --target), "
                "or a motion (--set motion_file=FILE)"
            )
        time_s = (self._frame + 1) / self._settings.fps
        if self._ends:
            time_s = min(time_s, next(p.end_s for p in motion.phases if p.name == self._ends))
        targets = motion.targets(time_s)
        openness = [r.gripper_openness(q) for r, q in zip(self._header.robots, targets, strict=True)]
        return state_vector(self._header, targets, openness, commanded=True)[self._kept[ACTION]]

    def close(self) -> None:
        """Nothing outside this process is held."""
        self._dressers = {}

    def _open_hands(self, targets: tuple[np.ndarray, ...], action: np.ndarray) -> None:
        """Finger targets of an openness, in place: each finger at that share of its travel."""
        for part in self._openness:
            robot = next(r for r, spec in enumerate(self._header.robots) if spec.name == part.robot)
            spec = self._header.robots[robot]
            for index, openness in zip(
                self._header.recorded_grippers(spec), action[part.start : part.end], strict=True
            ):
                gripper = spec.grippers[index]
                closed, opened = np.array(gripper.closed_position), np.array(gripper.open_position)
                dofs = [spec.dof_index(name) for name in gripper.finger_joints]
                targets[robot][dofs] = closed + (opened - closed) * openness

    def _read_facts(self) -> Facts:
        settings = self._settings
        frames = settings.frames - 1
        if self._ends:
            end = next(p.end_s for p in self._scenario.motion.phases if p.name == self._ends)
            frames = min(frames, math.ceil((end + SETTLE_S) * settings.fps))
        return Facts(
            engine.versions(),
            settings.task,
            settings.fps,
            frames,
            self._schema.vectors[STATE].names,
            self._schema.vectors[ACTION].names,
            {name: camera.size for name, camera in self._scenario.cameras.items()},
            {
                "preset": settings.name,
                "content": self._content,
                "scenario": repr(settings),
                "ends": self._ends,
                "layout": self._layout,
            },
        )

    def _read_moment(self, m: Measurement) -> Moment:
        links = [link.prim_path for robot in self._header.robots for link in robot.links]
        held = frozenset(
            i
            for i, o in enumerate(self._scenario.objects)
            if o.spec.movable and len(holders(m.contacts, o.spec.prim_path, links)) >= 2
        )
        hand, openness = np.zeros(3), 1.0
        if self._hand is not None:
            robot, g = self._hand
            spec = self._header.robots[robot]
            gripper = spec.grippers[g]
            link = m.T_world_body[self._links[robot][spec.link_index(gripper.ee_link)]]
            hand = (link @ gripper.T_link_ee)[:3, 3]
            openness = float(spec.gripper_openness(m.joint_position[robot])[g])
        return Moment(m.time_s, m.joint_position, m.joint_velocity, self._object_poses(m), held, hand, openness)

    def _object_poses(self, m: Measurement) -> Float64[np.ndarray, "O 4 4"]:
        poses = [
            o.T_world_object if body < 0 else m.T_world_body[body]
            for body, o in zip(self._bodies, self._scenario.objects, strict=True)
        ]
        return np.stack(poses) if poses else np.zeros((0, 4, 4))

    def _dress(self, look: Look, instances: InstanceMap, measurement: Measurement) -> None:
        """The renderer of a look; painters of its world."""
        scenario, lighting = self._scenario, self._settings.lighting
        sun = sun_direction(scenario.stage)
        builder, cameras, self._dressers = self._simulator.builder, tuple(scenario.cameras.values()), {}
        painted = bool(look.colours or look.textures or look.backdrop or look.distractors)
        if painted:
            # The unchanged picture says what is what.
            first = next((i for i, c in enumerate(cameras) if c.body_path is None), 0)
            plain = Renderer(builder, (cameras[first],), instances, lighting, sun).render(measurement.body_q, 0)
            source = self._source(tuple(scenario.cameras)[first], plain[0], measurement)
            bases = [robot.T_world_link[robot.spec.root][:3, 3] for robot in scenario.robots]
            builder, instances = dressed_scene(builder, instances, look, source, bases, self._seed)
        self._renderer = Renderer(
            builder, tuple(dressed_camera(look, c) for c in cameras), instances, dressed_lighting(look, lighting),
            dressed_sun(look, sun),
        )  # fmt: skip
        if look.world:
            world = load_catalogue().preset(look.world)
            frames = self._renderer.render(measurement.body_q, 0)
            for name, frame in zip(scenario.cameras, frames, strict=True):
                source = self._source(name, frame, measurement)
                self._dressers[name] = ProceduralBackend().dresser(source, world, self._seed)

    def _observe(self, m: Measurement) -> Observation:
        openness = [r.gripper_openness(q) for r, q in zip(self._header.robots, m.joint_position, strict=True)]
        state = state_vector(self._header, m.joint_position, openness)[self._kept[STATE]]
        images: dict[str, UInt8[np.ndarray, "H W 3"]] = {}
        frames = self._renderer.render(m.body_q, self._frame)
        for name, frame in zip(self._scenario.cameras, frames, strict=True):
            dresser = self._dressers.get(name)
            images[name] = frame.rgb if dresser is None else dresser.render(self._source(name, frame, m))
        return Observation(
            images, state.astype(np.float32), self._settings.task, self._schema.vectors[STATE].names,
            self._schema.slices, self._schema.action_slices,
        )  # fmt: skip

    def _source(self, name: str, frame: CameraFrame, m: Measurement) -> SourceFrame:
        assert frame.depth_m is not None
        assert frame.normals is not None
        assert frame.instance_ids is not None
        links = tuple(m.T_world_body[index] for index in self._links)
        return SourceFrame(
            self._header, name, self._frame, frame.camera, frame.rgb, frame.depth_m, frame.normals, frame.instance_ids,
            self._object_poses(m), links,
        )  # fmt: skip


def _working_hand(scenario: Scenario, named: str) -> tuple[int, int] | None:
    """(robot, gripper) that does the task: the script's, else of the named robot, or of all, the first with fingers, else the
    first there is. Raises InputError for a robot that is not there."""
    task = scenario.motion.settings.get("task", {})
    own = [r for r, robot in enumerate(scenario.robots) if named in ("", robot.spec.name, robot.spec.prim_path)]
    if not own:
        raise InputError(unknown_name("robot", named, (robot.spec.name for robot in scenario.robots)))
    every = [(r, g) for r in own for g in range(len(scenario.robots[r].spec.grippers))]
    for r, g in every:
        spec = scenario.robots[r].spec
        if (spec.name, spec.grippers[g].name) == (task.get("robot"), task.get("gripper")):
            return r, g
    with_fingers = [(r, g) for r, g in every if scenario.robots[r].spec.grippers[g].finger_joints]
    return next(iter([*with_fingers, *every]), None)


def _goal(scenario: Scenario, hand: tuple[int, int] | None, phase: str) -> Goal | None:
    """The script's goal as the tasks read it."""
    if scenario.goal is None or hand is None:
        return None
    index = next(i for i, o in enumerate(scenario.objects) if o.spec.name == scenario.goal["object"])
    robot, g = hand
    articulation = scenario.robots[robot]
    spec = articulation.spec
    end = next(p.end_s for p in scenario.motion.phases if p.name == phase)
    q = scenario.motion.paths[robot].at(end)
    links = spec.forward_kinematics(q, articulation.T_world_link[spec.root])
    hover = (links[spec.link_index(spec.grippers[g].ee_link)] @ spec.grippers[g].T_link_ee)[:3, 3]
    return Goal(
        index, np.array(scenario.goal["center_m"]), np.array(scenario.goal["size_m"]),
        np.array(scenario.objects[index].spec.center_m), hover,
    )  # fmt: skip
