# SPDX-License-Identifier: Apache-2.0
"""The real Isaac Lab for tests and proofs: the example environment, small pictures, and oracles that share nothing with the
recorder but the episode they look at."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
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

from retake.core.episode import Episode, open_episode  # noqa: E402
from retake.core.geometry import transform  # noqa: E402
from retake.lab import host, pictures, recorder, replay  # noqa: E402
from retake.lab.preparation import prepare  # noqa: E402
from retake.lab.request import RecordRequest  # noqa: E402
from retake.lab.wrapper import RetakeWrapper  # noqa: E402

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


def standing(clones: int) -> Any:
    """A configuration whose episodes never end: the fixed camera alone, two physics steps to a control step."""
    cfg = config(clones, size=(64, 48))
    cfg.scene.wrist = None
    cfg.episode_length_s = 1e6
    cfg.terminations.success = None
    cfg.decimation = 2
    cfg.sim.render_interval = 2
    return cfg


def _late(patch: Any) -> None:
    """Every picture one late."""
    last: dict[tuple[str, int], Any] = {}
    real = pictures.read_view

    def read(sensor: Any, camera: Any, env_id: int) -> Any:
        view = real(sensor, camera, env_id)
        old, last[camera.key, env_id] = last.get((camera.key, env_id), view), view
        return replace(view, images=old.images)

    patch.setattr(recorder, "read_view", read)


def _stale(patch: Any) -> None:
    """The first picture after a reset is the last one of before it."""
    last: dict[tuple[str, int], Any] = {}
    real, fresh = pictures.read_view, pictures.is_fresh
    new: dict[tuple[int, int], int] = {}

    def is_fresh(env: Any, sensor: Any, env_id: int, since: int) -> bool:
        new[id(sensor), env_id] = since
        return fresh(env, sensor, env_id, since)

    def read(sensor: Any, camera: Any, env_id: int) -> Any:
        view = real(sensor, camera, env_id)
        old, last[camera.key, env_id] = last.get((camera.key, env_id), view), view
        return replace(view, images=old.images) if new[id(sensor), env_id] == 0 else view

    patch.setattr(recorder, "is_fresh", is_fresh)
    patch.setattr(recorder, "read_view", read)


def _no_origin(patch: Any) -> None:
    real = host.local_poses
    patch.setattr(host, "local_poses", lambda rows, origin, order: real(rows, np.zeros(3), order))


def _neighbour(patch: Any) -> None:
    real = pictures.read_view

    def read(sensor: Any, camera: Any, env_id: int) -> Any:
        return replace(real(sensor, camera, env_id), images=real(sensor, camera, 1 - env_id).images)

    patch.setattr(recorder, "read_view", read)


PLANTED = {
    "pictures one step late": _late,
    "quaternions w x y z for x y z w": lambda patch: patch.setattr(host, "quaternion_order", lambda scene: "wxyz"),
    "origin of the clone left out": _no_origin,
    "picture of before the reset": _stale,
    "pictures of the other clone": _neighbour,
}
"""Faults for the real host, by name; each changes the recorder through pytest's MonkeyPatch."""


def put_marker(env: Any, steps: np.ndarray) -> None:
    """Set the packet to the place of each clone's step number, another one in each clone; it falls by a fraction of a pixel
    until the step's end."""
    packet = env.scene["packet"]
    pose = packet.data.root_link_pose_w.torch.clone()
    places = torch.tensor(PLACES[(steps + 3 * np.arange(len(steps))) % len(PLACES)])
    pose[:, :3] = places + env.scene.env_origins
    pose[:, 3:] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    packet.write_root_pose_to_sim_index(root_pose=pose)
    packet.write_root_velocity_to_sim_index(root_velocity=torch.zeros((len(pose), 6)))


def decoded(episode: Episode, camera: str, k: int) -> int | None:
    """Index of the place at which picture k shows the marker, from its red pixels alone (it is drawn about (192, 105, 76));
    None where it shows none."""
    rgb = episode.image(camera, "rgb", k).astype(float)
    red = (rgb[..., 0] > 90) & (rgb[..., 0] > 1.5 * rgb[..., 1]) & (rgb[..., 0] > 1.8 * rgb[..., 2])
    if red.sum() < 6:
        return None
    seen = np.array([np.nonzero(red)[1].mean() + 0.5, np.nonzero(red)[0].mean() + 0.5])
    uv, _ = episode.camera(camera, k).project(PLACES.astype(np.float64))
    return int(np.linalg.norm(uv - seen, axis=1).argmin())


def stated(episode: Episode, k: int) -> int:
    """Index of the place at which the recorded state has the marker; -1 where it is at none."""
    names = [o.name for o in episode.header.objects]
    off = np.linalg.norm(PLACES - episode.object_poses[k, names.index("packet"), :3, 3], axis=1)
    return int(off.argmin()) if off.min() < 0.02 else -1


def mispaired(episode: Episode) -> tuple[int, int]:
    """(pictures, those that do not show their own state or whose state is not of their own control step)."""
    said = episode.header.settings["isaac_lab"]
    stride, clone = round(1 / (episode.header.fps * said["control_step_s"])), said["env_id"]
    mask = mask_of(episode, "object:packet", "front", 0)  # where the environment's own reset put the packet
    wrong = int(not mask.any() or beyond(mask, box_silhouette(episode, "packet", "front", 0)) > 0)
    for k in range(1, len(episode)):
        told, step = stated(episode, k), k * stride + 3 * clone
        due = {(step + 1) % len(PLACES)}
        if k == len(episode) - 1:  # taken just before the reset, the marker is where the last step had it
            due.add(step % len(PLACES))
        wrong += told not in due or decoded(episode, "front", k) != told
    return len(episode), wrong


def run_schedule(env: Any, rng: np.random.Generator, out: Path) -> tuple[int, int, int]:
    """(frames, mispaired, resets) of one random schedule: decimation, render_interval, a camera's period, resets within
    steps and from outside."""
    env.cfg.decimation, env.cfg.sim.render_interval = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    for name in ("front", "wrist"):
        env.scene[name].cfg.update_period = float(rng.choice([0.0, 0.0, 2 * env.step_dt]))
    wrapped = RetakeWrapper(env, RecordRequest(out, env_ids=None, channels=("rgb", "depth", "instances")))
    steps = np.zeros(env.num_envs, int)
    resets = 0
    action = torch.tensor([[*list(pick_place_env.HOME.values())]] * env.num_envs)
    try:
        wrapped.reset()
        for _ in range(int(rng.integers(4, 9))):
            if rng.random() < 0.2:
                chosen = int(rng.integers(env.num_envs))
                env.reset(env_ids=torch.tensor([chosen], dtype=torch.int32))
                steps[chosen], resets = 0, resets + 1
            if rng.random() < 0.25:
                env.episode_length_buf[int(rng.integers(env.num_envs))] = env.max_episode_length
            steps += 1
            put_marker(env, steps)
            _, _, done, late, _ = wrapped.step(action)
            ended = (done | late).numpy()
            resets += int(ended.sum())
            steps[ended] = 0
    finally:
        wrapped.finish()
    counts = [mispaired(open_episode(run.episode)) for run in wrapped.recorder.kept]
    return sum(frames for frames, _ in counts), sum(wrong for _, wrong in counts), resets


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


@dataclass(frozen=True)
class Replayed:
    """How far a repeated demonstration is from the recorded one, any number of any state."""

    steps: int
    largest: float
    where: str
    at_step: int
    first_beyond: int
    """The first step that is beyond Isaac Lab's tolerance; -1: none is."""
    before_contact: float
    """The largest difference before the packet moved by itself or was moved."""


def replayed(env: Any, path: Path, demo: str = "demo_0", clone: int = 0, *, targets: bool = False) -> Replayed:
    """Repeat a demonstration's actions (or its joint targets) in one clone as `replay_demos.py --validate_states` does."""
    (found,), _, _ = replay.read_demos(path, [demo], failed=True)
    env.reset_to(
        replay.state_at(found["initial"], 0, env.device), torch.tensor([clone], dtype=torch.int32), is_relative=True
    )
    worst, beyond, before = (0.0, "", -1), -1, 0.0
    states = found["states"]
    packet = states["rigid_object"]["packet"]["root_pose"][:, :3]
    moved = np.flatnonzero(np.abs(packet - packet[0]).max(1) > 2e-3)
    touched = int(moved[0]) if len(moved) else len(packet)
    for k in range(len(found["actions"])):
        if targets:
            rows = torch.as_tensor(found["targets"]["articulation"]["robot"][k])[None].repeat(env.num_envs, 1)
            replay.advance(env, lambda rows=rows: env.scene["robot"].set_joint_position_target_index(target=rows))
        else:
            replay.step_without_reset(env, torch.as_tensor(found["actions"][k])[None].repeat(env.num_envs, 1))
        off, where = replay.worst_difference(states, env.scene.get_state(is_relative=True), k, clone)
        worst = max(worst, (off, where, k))
        before = max(before, off) if k < touched else before
        beyond = k if beyond < 0 and off > replay.TOLERANCE else beyond
    return Replayed(len(found["actions"]), *worst, beyond, before)


def set_states(env: Any, path: Path, demo: str, clone: int) -> float:
    """Largest difference of any number of any state after `reset_to` of what Isaac Lab's own file handler reads."""
    from isaaclab.utils.datasets import HDF5DatasetFileHandler

    handler, worst, ids = HDF5DatasetFileHandler(), 0.0, torch.tensor([clone], dtype=torch.int32)
    handler.open(str(path))
    data = handler.load_episode(demo, env.device)
    assert data is not None
    state = data.get_initial_state()
    while state is not None:
        env.reset_to(state, ids, is_relative=True)
        now = env.scene.get_state(is_relative=True)
        for kind in ("articulation", "rigid_object"):
            for name, parts in state[kind].items():
                for part, value in parts.items():
                    worst = max(worst, float((now[kind][name][part][clone] - value[0]).abs().max()))
        state = data.get_next_state()
    handler.close()
    return worst


def files_differ(ours: Path, own: Path, demo: str) -> dict[str, float]:
    """Largest difference of what both files have of a demonstration, per data set; quaternions of both x y z w."""
    import h5py

    out: dict[str, float] = {}
    with h5py.File(ours, "r") as a, h5py.File(own, "r") as b:
        mine, theirs = a["data"][demo], b["data"][demo]

        def compare(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and name.split("/")[0] in ("actions", "states", "initial_state"):
                assert name in mine, f"{name} is not in our file"
                assert mine[name].shape == item.shape, (name, mine[name].shape, item.shape)
                out[name] = float(np.abs(np.asarray(mine[name]) - np.asarray(item)).max())

        theirs.visititems(compare)
    return out
