# SPDX-License-Identifier: Apache-2.0
"""`retake capture --simulator newton`: preset and seed in, Episode out.

Frames are rendered on worker threads while the simulation runs ahead by a bounded number of frames, and are written in
order; nothing depends on the threads' timing, so one seed gives one content hash on one machine.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retake.core.array_types import Float64
from retake.core.episode import (
    CameraFrame,
    CameraSpec,
    Episode,
    EpisodeHeader,
    EpisodeWriter,
    Frame,
    PhysicsSamples,
    RobotState,
)
from retake.newton import engine
from retake.newton.motion import Motion, obeyed
from retake.newton.preset import Preset, load_preset
from retake.newton.renderer import InstanceMap, Renderer, instance_map, sun_direction
from retake.newton.scenario import Scenario, build
from retake.newton.simulator import Measurement, Simulator

RENDER_THREADS = 2
AHEAD = 3
"""Frames simulated ahead of the oldest one still being rendered: bounds memory, keeps both threads busy."""


def capture(
    out_dir: Path | str,
    *,
    preset: str = "short",
    seed: int = 0,
    stage: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    render: bool = True,
) -> Episode:
    """Simulate one Episode into `out_dir` (which must not hold anything yet) and open it.

    `overrides` replaces preset values by name (docs/embedded_simulator.md), e.g. `{"randomise": {"friction": 0}}`.
    `render=False` records states and contacts only: an episode without cameras, for physics studies.

    Raises InputError for unknown presets and values, StageError for stages that cannot be simulated or lack a camera,
    an articulation or (for the scripted task) a gripper or an object, EpisodeError when `out_dir` is not empty.
    """
    settings = load_preset(preset, overrides or {}, own_stage=stage is not None).lasting(overrides or {})
    with_cameras = settings if render else settings.without_cameras()
    scenario = build(with_cameras, seed, stage)
    simulator = Simulator(
        scenario.stage,
        scenario.robots,
        settings.dt_s,
        friction=scenario.variation.friction,
        drives=settings.drive_request,
        named=scenario.motion.named,
    )
    scenario = driven(scenario, simulator)
    instances = instance_map(
        scenario.stage, simulator.shape_paths, scenario.robots, tuple(o.spec for o in scenario.objects)
    )
    header = make_header(settings, scenario, instances, seed)
    with EpisodeWriter(out_dir, header) as writer:
        for done, frame in enumerate(_frames(simulator, scenario, settings, instances), 1):
            writer.append(frame)
            if progress is not None:
                progress(done, settings.frames)
        return writer.finish()


def driven(scenario: Scenario, simulator: Simulator) -> Scenario:
    """The scenario as the simulator's drives can play it: which joints are commanded, followers at their leaders.

    Raises InputError naming joints whose commanded motion cannot be obeyed.
    """
    motion = obeyed(scenario.motion, simulator.drives)
    robots = []
    for robot, commanded in zip(scenario.robots, simulator.drives.driven, strict=True):
        by_name = dict(zip(robot.spec.dof_names, commanded, strict=True))
        joints = tuple(replace(j, driven=by_name.get(j.name, True)) for j in robot.spec.joints)
        robots.append(replace(robot, spec=replace(robot.spec, joints=joints)))
    notes = (*scenario.notes, *simulator.notes, *simulator.drives.notes())
    if scenario.motion.settings.get("scenario") == "hold":
        notes += (
            "no motion is given, so the robots hold their pose; give one with --motion FILE.csv (docs/motion.md)",
        )
    stated = simulator.drives.settings()
    settings = {**motion.settings, **({"stated_drives": stated} if stated else {})}
    return replace(scenario, motion=replace(motion, settings=settings), robots=tuple(robots), notes=notes)


def make_header(settings: Preset, scenario: Scenario, instances: InstanceMap, seed: int) -> EpisodeHeader:
    """What holds for the whole episode."""
    return EpisodeHeader(
        task=settings.task,
        fps=float(settings.fps),
        physics_dt_s=settings.dt_s,
        robots=tuple(robot.spec for robot in scenario.robots),
        cameras=tuple(
            CameraSpec(
                name, c.prim_path, c.size, c.body_path is None and not c.frames, near_far_m=c.near_far_m, lens=c.lens
            )
            for name, c in scenario.cameras.items()
        ),
        objects=tuple(obj.spec for obj in scenario.objects),
        instances=instances.instances,
        simulator="newton",
        simulator_version=engine.versions(),
        stage_sha256=scenario.stage_sha256,
        seed=seed,
        settings={
            "preset": settings.name,
            **scenario.motion.settings,
            "variation": scenario.variation.to_json(),
            **({"goal": scenario.goal} if scenario.goal else {}),
            **({"licence": scenario.licence} if scenario.licence else {}),
            **({"notes": list(scenario.notes)} if scenario.notes else {}),
        },
    )


def _frames(simulator: Simulator, scenario: Scenario, settings: Preset, instances: InstanceMap) -> Iterator[Frame]:
    """Frames in order, rendered by threads; at most AHEAD + RENDER_THREADS measurements are alive."""
    measured = simulate(simulator, scenario, settings)
    if not scenario.cameras:
        for _, state in measured:
            yield state(())
        return
    cameras = tuple(scenario.cameras.values())
    sun = sun_direction(scenario.stage)
    idle: queue.SimpleQueue[Renderer] = queue.SimpleQueue()
    for _ in range(RENDER_THREADS):
        idle.put(Renderer(simulator.builder, cameras, instances, settings.lighting, sun))

    def render(measurement: Measurement, index: int) -> tuple[CameraFrame, ...]:
        renderer = idle.get()
        try:
            return renderer.render(measurement.body_q, index)
        finally:
            idle.put(renderer)

    pending: deque[tuple[Callable[[tuple[CameraFrame, ...]], Frame], Future[tuple[CameraFrame, ...]]]] = deque()
    with ThreadPoolExecutor(RENDER_THREADS, thread_name_prefix="render") as pool:
        try:
            for index, (measurement, state) in enumerate(measured):
                job = pool.submit(render, measurement, index)
                if index == 0:
                    # The first frame compiles kernels; two threads would do it twice.
                    job.result()
                pending.append((state, job))
                while len(pending) > AHEAD + RENDER_THREADS:
                    ready, images = pending.popleft()
                    yield ready(images.result())
            while pending:
                ready, images = pending.popleft()
                yield ready(images.result())
        finally:
            pool.shutdown(cancel_futures=True)


def simulate(
    simulator: Simulator, scenario: Scenario, settings: Preset
) -> Iterator[tuple[Measurement, Callable[[tuple[CameraFrame, ...]], Frame]]]:
    """Run the motion; yields each frame's measurement and a function that adds the images to make the Frame."""
    motion, robots = scenario.motion, scenario.robots
    bodies = [simulator.body_index(o.spec.prim_path) if o.spec.movable else -1 for o in scenario.objects]
    fixed = [o.T_world_object for o in scenario.objects]

    def object_poses() -> Float64[np.ndarray, "O 4 4"]:
        poses = [fixed[i] if body < 0 else simulator.pose(body) for i, body in enumerate(bodies)]
        return np.stack(poses) if poses else np.zeros((0, 4, 4))

    commanded = [np.array(mask, bool) for mask in simulator.drives.commanded]
    links = [[simulator.body_index(link.prim_path) for link in robot.spec.links] for robot in robots]
    track_time, track_pose = [0.0], [object_poses()]
    command(simulator, motion, 0.0)
    for index in range(settings.frames):
        m = simulator.measure()
        # The action of this frame: the target that holds when the next frame is measured.
        targets = motion.targets(m.time_s + 1.0 / settings.fps)
        states = tuple(
            RobotState(
                joint_position=m.joint_position[r],
                T_world_link=m.T_world_body[links[r]],
                gripper_openness=robot.spec.gripper_openness(m.joint_position[r]),
                joint_velocity=m.joint_velocity[r],
                joint_effort=m.joint_effort[r],
                # What nothing commands has no target: where it is stands for it.
                joint_target=np.where(commanded[r], targets[r], m.joint_position[r]),
            )
            for r, robot in enumerate(robots)
        )
        physics = PhysicsSamples(np.array(track_time), np.stack(track_pose)) if scenario.objects else None
        poses, contacts, time_s = object_poses(), m.contacts, index / settings.fps

        def frame(
            images: tuple[CameraFrame, ...],
            time_s: float = time_s,
            states: tuple[RobotState, ...] = states,
            poses: Float64[np.ndarray, "O 4 4"] = poses,
            contacts: Any = contacts,
            physics: PhysicsSamples | None = physics,
        ) -> Frame:
            return Frame(time_s, states, poses, images, contacts, physics)

        yield m, frame
        track_time, track_pose = [], []
        if index + 1 == settings.frames:
            return
        for _ in range(settings.steps_per_frame):
            command(simulator, motion, simulator.time_s + settings.dt_s)
            simulator.step()
            track_time.append(simulator.time_s)
            track_pose.append(object_poses())


def command(simulator: Simulator, motion: Motion, time_s: float) -> None:
    """Send the motion's targets of a time to every robot's drives."""
    for robot, target in enumerate(motion.targets(time_s)):
        simulator.command(robot, target)
