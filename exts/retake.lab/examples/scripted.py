# SPDX-License-Identifier: Apache-2.0
"""A scripted policy for pick_place_env: the planner of Retake's own pick-and-place, once per episode and clone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pick_place_env
import torch

from retake.lab import host
from retake.lab.stage import source_of, view_of
from retake.newton import pick_place
from retake.newton.motion import Motion
from retake.usd.articulation import read_articulations
from retake.usd.bodies import read_object
from retake.usd.units import StageUnits

PHASES = {
    "wait": 0.1,
    "approach": 0.9,
    "descend": 0.6,
    "close": 0.5,
    "lift": 0.6,
    "carry": 1.5,
    "release": 0.4,
    "retreat": 0.5,
}


class Scripted:
    """Joint targets for every clone; a plan begins anew when a clone does."""

    def __init__(self, env: Any) -> None:
        scene, stage = env.scene, env.sim.stage
        source = source_of(scene, stage, 0)
        self.view = view_of(scene, stage, source)
        units = StageUnits.of(self.view)
        (self.robot,) = read_articulations(self.view, [f"{source}/Robot"])
        self.packet = read_object(self.view.GetPrimAtPath(f"{source}/Packet"), units, movable=True)
        self.tray = read_object(self.view.GetPrimAtPath(f"{source}/Tray"), units, movable=False)
        self.origin = host.array(scene.env_origins)[0].astype(np.float64)
        self.plans: dict[int, Motion] = {}
        self.columns = [self.robot.spec.dof_index(n) for n in (*pick_place_env.ARM, *pick_place_env.FINGERS)]

    def __call__(self, env: Any, obs: Any) -> torch.Tensor:
        """(N, 9) joint targets for the end of the coming control step."""
        steps = host.array(env.episode_length_buf)
        rows = []
        for i, step in enumerate(steps):
            if step == 0 or i not in self.plans:
                self.plans[i] = self._plan(env, i)
            rows.append(self.plans[i].targets((step + 1) * env.step_dt)[0][self.columns])
        return torch.tensor(np.stack(rows), dtype=torch.float32, device=env.device)

    def _plan(self, env: Any, i: int) -> Motion:
        rows = host.array(host.pose_tensor(env.scene["packet"].data, "root")[i])
        T = host.local_poses(
            rows, host.array(env.scene.env_origins)[i].astype(np.float64), host.quaternion_order(env.scene)
        )
        T[:3, 3] += self.origin  # the stage's clone
        data, names = env.scene["robot"].data, list(env.scene["robot"].joint_names)
        q = host.array(data.joint_pos)[i][[names.index(n) for n in self.robot.spec.dof_names]].astype(np.float64)
        joints = self.robot.spec.dof_joints
        q = np.clip(q, [j.lower for j in joints], [j.upper for j in joints])
        robot = replace(self.robot, initial_position=q)
        task = pick_place.Task((robot,), 0, replace(self.packet, T_world_object=T), self.tray, 0.05, PHASES, 100.0)
        return pick_place.plan(self.view, task)


def policy(env: Any) -> Scripted:
    """What `--policy scripted.py:policy` calls."""
    return Scripted(env)
