# SPDX-License-Identifier: Apache-2.0
"""retake.lab around a Direct environment of the real Isaac Lab 3, which has no recorder manager."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed here; `make lab-env`, then `make test-lab`")

import lab_support as lab
import torch
from isaaclab.envs import DirectRLEnv, DirectRLEnvCfg
from isaaclab.utils import configclass

from retake.core.episode import open_episode
from retake.core.episode.extra import extra_of, success_of
from retake.lab.preparation import prepare
from retake.lab.request import RecordRequest
from retake.lab.wrapper import RetakeWrapper


@configclass
class DirectCfg(DirectRLEnvCfg):
    decimation: int = 2
    episode_length_s: float = 4 * 2 / 240
    action_space: int = 9
    observation_space: int = 9
    scene: Any = lab.pick_place_env.SceneCfg(num_envs=2, env_spacing=3.0)

    def __post_init__(self):
        self.sim = lab.pick_place_env.PickPlaceEnvCfg().sim
        self.sim.render_interval = self.decimation


class Direct(DirectRLEnv):
    """Absolute joint targets; clones end when their time is out, clone 1 a step before clone 0."""

    def _pre_physics_step(self, actions: torch.Tensor) -> None:
        self.wanted = actions

    def _apply_action(self) -> None:
        self.scene["robot"].actuators.target_command.set_position_index(value=self.wanted)

    def _get_observations(self) -> dict[str, torch.Tensor]:
        return {"policy": self.scene["robot"].data.joint_pos.torch.clone()}

    def _get_rewards(self) -> torch.Tensor:
        return torch.zeros(self.num_envs)

    def _get_dones(self) -> tuple[torch.Tensor, torch.Tensor]:
        late = self.episode_length_buf + torch.arange(self.num_envs) >= self.max_episode_length
        return torch.zeros_like(late), late


def test_a_direct_environment_is_recorded_by_the_wrapper(tmp_path: Path) -> None:
    gc.collect()
    cfg = DirectCfg()
    prepare(cfg, sizes={"front": (96, 72), "wrist": (80, 60)})
    env = Direct(cfg)
    names = list(env.scene["robot"].joint_names)
    request = RecordRequest(tmp_path, env_ids=None, physics_rate=True)
    wrapped = RetakeWrapper(env, request, success=lambda host: [False, True])
    wrapped.reset()
    home = torch.tensor([[lab.pick_place_env.HOME[name] for name in names]] * 2)
    steps, actions = np.zeros(2, int), []
    for k in range(10):
        steps += 1
        lab.put_marker(env, steps)
        actions.append(home + 0.001 * k)
        _, _, done, late, _ = wrapped.step(actions[-1])
        steps[(done | late).numpy()] = 0
    wrapped.close()
    gc.collect()
    lengths: dict[int, list[int]] = {0: [], 1: []}
    for run in wrapped.recorder.kept:
        episode = open_episode(run.episode)
        clone = episode.header.settings["isaac_lab"]["env_id"]
        begun = sum(n - 1 for n in lengths[clone])
        lengths[clone].append(len(episode))
        # The first frame has no reset event that moves the packet: the marker is there already.
        told = [lab.stated(episode, k) for k in range(len(episode))]
        assert [lab.decoded(episode, "front", k) for k in range(len(episode))] == told
        issued = extra_of(episode)["action"][1]
        ended = np.isnan(issued).any(1)
        whole = torch.stack([a[clone] for a in actions])[begun : begun + int((~ended).sum())].numpy()
        assert np.array_equal(issued[~ended], whole)
        joints = [names.index(n) for n in episode.header.robots[0].dof_names]
        assert np.allclose(episode.joint("robot", "target")[: len(whole)], whole[:, joints], atol=1e-6)
        assert all(len(episode.physics(k).time_s) == 2 for k in range(1, len(episode)))
        if ended.any():
            assert success_of(episode) is (clone == 1)
    assert lengths == {0: [5, 5, 2], 1: [4, 4, 4, 1]}, lengths
