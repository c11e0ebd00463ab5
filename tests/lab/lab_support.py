# SPDX-License-Identifier: Apache-2.0
"""The real Isaac Lab for tests and proofs: the example environment, small pictures, and oracles that share nothing with the
recorder but the episode they look at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "exts/retake.lab/examples"))

import pick_place_env  # noqa: E402
from isaaclab.envs import ManagerBasedRLEnv  # noqa: E402
from isaaclab.managers import RecorderTerm, RecorderTermCfg  # noqa: E402
from isaaclab.utils import configclass  # noqa: E402

from retake.core.episode import Episode  # noqa: E402
from retake.core.geometry import transform  # noqa: E402
from retake.lab.preparation import prepare  # noqa: E402

PLACES = np.array([[0.75, y, 0.35] for y in (-0.36, -0.24, -0.12, 0.0, 0.12, 0.24, 0.36)], np.float32)
"""Where the marker stands, in a clone's coordinates, m: one place per control step, round and round."""


class Oracle(RecorderTerm):
    """Copies of the environment's own tensors at the moments that an Episode's frames are of."""

    def __init__(self, cfg: Any, env: Any) -> None:
        super().__init__(cfg, env)
        self.rows: list[dict[str, torch.Tensor]] = []

    def record_pre_step(self) -> tuple[None, None]:
        robot, packet = self._env.scene["robot"].data, self._env.scene["packet"].data
        self.rows.append(
            {
                "q": robot.joint_pos.torch.clone(), "dq": robot.joint_vel.torch.clone(),
                "links": robot.body_link_pose_w.torch.clone(), "packet": packet.root_link_pose_w.torch.clone(),
                "velocity": packet.root_vel_w.torch.clone(), "effort": robot.applied_torque.torch.clone(),
                "action": self._env.action_manager.action.clone(),
            }
        )  # fmt: skip
        return None, None

    def record_post_step(self) -> tuple[None, None]:
        self.rows[-1]["target"] = self._env.scene["robot"].data.joint_pos_target.torch.clone()
        return None, None


@configclass
class OracleCfg(RecorderTermCfg):
    class_type: type = Oracle


def config(clones: int, size: tuple[int, int] = (160, 120), **more: Any) -> Any:
    """The example environment's configuration, prepared for recording."""
    cfg = pick_place_env.PickPlaceEnvCfg()
    cfg.scene.num_envs, cfg.seed = clones, 0
    prepare(cfg, sizes={"front": size, "wrist": (80, 60)}, **more)
    return cfg


def make(clones: int, **more: Any) -> ManagerBasedRLEnv:
    return ManagerBasedRLEnv(config(clones, **more))


def put_marker(env: Any, steps: np.ndarray) -> None:
    """Set the packet to the place of each clone's step number; it falls by a fraction of a pixel until the step's end."""
    packet = env.scene["packet"]
    pose = packet.data.root_link_pose_w.torch.clone()
    places = torch.tensor(PLACES[steps % len(PLACES)])
    pose[:, :3] = places + env.scene.env_origins
    pose[:, 3:] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    packet.write_root_pose_to_sim_index(root_pose=pose)
    packet.write_root_velocity_to_sim_index(root_velocity=torch.zeros((len(pose), 6)))


def decoded(episode: Episode, camera: str, k: int) -> int | None:
    """Index of the place at which picture k shows the marker, from its red pixels alone; None where it shows none."""
    rgb = episode.image(camera, "rgb", k).astype(int)
    red = (rgb[..., 0] > 90) & (rgb[..., 0] > 2 * rgb[..., 1]) & (rgb[..., 0] > 2 * rgb[..., 2])
    if red.sum() < 6:
        return None
    seen = np.array([np.nonzero(red)[1].mean() + 0.5, np.nonzero(red)[0].mean() + 0.5])
    uv, _ = episode.camera(camera, k).project(PLACES.astype(np.float64))
    return int(np.linalg.norm(uv - seen, axis=1).argmin())


def stated(episode: Episode, k: int) -> int:
    """Index of the place at which the recorded state has the marker."""
    names = [o.name for o in episode.header.objects]
    return int(np.linalg.norm(PLACES - episode.object_poses[k, names.index("packet"), :3, 3], axis=1).argmin())


def box_silhouette(episode: Episode, name: str, camera: str, k: int) -> np.ndarray:
    """(H, W) bool: what an object's box covers in a picture, by our own projection."""
    item = next(o for o in episode.header.objects if o.name == name)
    T = episode.object_poses[k, episode.header.objects.index(item)]
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    corners = transform(T, signs * np.array(item.size_m) / 2 + np.array(item.center_m))
    uv, _ = episode.camera(camera, k).project(corners)
    return _filled(episode, camera, [cv2.convexHull(uv.astype(np.float32)).reshape(-1, 2)])


def robot_silhouette(episode: Episode, triangles: dict[str, np.ndarray], camera: str, k: int) -> np.ndarray:
    """(H, W) bool: what the links' meshes (link name → (F, 3, 3) m, link frame) cover, by our own projection."""
    robot = episode.header.robots[0]
    polygons = []
    for link, faces in triangles.items():
        T = episode.link_poses(robot.name)[k, robot.link_index(link)]
        points = transform(T, faces.reshape(-1, 3))
        uv, depth = episode.camera(camera, k).project(points)
        good = (depth.reshape(-1, 3) > 0.01).all(1)
        polygons += list(uv.reshape(-1, 3, 2)[good])
    return _filled(episode, camera, polygons)


def _filled(episode: Episode, camera: str, polygons: list[np.ndarray]) -> np.ndarray:
    """Polygons in pixels (centres at +0.5), drawn eight times as fine and taken where a pixel's centre is covered."""
    width, height = episode.header.camera(camera).size
    fine, scale = np.zeros((height * 8, width * 8), np.uint8), 8
    for polygon in polygons:
        cv2.fillConvexPoly(fine, np.round((polygon * scale - 0.5) * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    return fine[4::8, 4::8] > 0


def mask_of(episode: Episode, owner: str, camera: str, k: int) -> np.ndarray:
    """(H, W) bool of an owner in the recorded instance image."""
    ids = [i.id for i in episode.header.instances if i.owner == owner]
    return np.isin(episode.image(camera, "instances", k), ids)


def beyond(mask: np.ndarray, outline: np.ndarray, px: int = 1) -> int:
    """Pixels of a mask that lie further than `px` outside an outline."""
    grown = cv2.dilate(outline.astype(np.uint8), np.ones((2 * px + 1, 2 * px + 1), np.uint8)) > 0
    return int((mask & ~grown).sum())


def plane_depth(episode: Episode, camera: str, k: int, height_m: float) -> np.ndarray:
    """(H, W) forward depth of a horizontal plane at a height, m."""
    view = episode.camera(camera, k)
    width, height = view.size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - view.K[0, 2]) / view.K[0, 0], (y - view.K[1, 2]) / view.K[1, 1], np.ones_like(x)], -1)
    T = np.linalg.inv(view.T_camera_world)
    return (height_m - T[2, 3]) / (rays @ T[:3, :3].T)[..., 2]
