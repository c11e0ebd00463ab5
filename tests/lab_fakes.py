# SPDX-License-Identifier: Apache-2.0
"""Environments of Isaac Lab in small, without it: the attributes that 2.3 and 3.0 have (3.0's from the files of its wheel:
`manager_based_env.py`, `sensor_base.py`, `camera.py`), a robot of two links whose motion is known, cameras whose pictures say
which step they show. `kind`: newton_warp draws when it is read, isaac_rtx hands out what the last render drew."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from retake.core.episode import Episode
from retake.core.geometry import inverse, wxyz_from_rotation
from retake.lab.recorder import LabRecorder
from retake.lab.request import RecordRequest

SIZE = (16, 12)
LENGTH = 0.4
DT = 0.01
CHANNELS: Any = ("rgb", "depth", "instances")


class Proxy:
    """What assets of 3.x hold."""

    def __init__(self, value: np.ndarray) -> None:
        self.torch = value


def author(num_envs: int) -> Usd.Stage:
    """/World/envs/env_i: Robot (base, arm on a hinge about Z), Cube, a fixed camera and one on the arm."""
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, "Z")
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    for env in range(num_envs):
        root = f"/World/envs/env_{env}"
        UsdGeom.Xform.Define(stage, root).AddTranslateOp().Set(Gf.Vec3d(*origin(env)))
        robot = UsdGeom.Xform.Define(stage, f"{root}/Robot").GetPrim()
        UsdPhysics.ArticulationRootAPI.Apply(robot)
        for name in ("base", "arm"):
            body = UsdGeom.Xform.Define(stage, f"{root}/Robot/{name}").GetPrim()
            UsdPhysics.RigidBodyAPI.Apply(body)
            UsdGeom.Cube.Define(stage, f"{root}/Robot/{name}/shape").CreateSizeAttr(0.1)
        fixed = UsdPhysics.FixedJoint.Define(stage, f"{root}/Robot/joints/root")
        fixed.CreateBody1Rel().SetTargets([f"{root}/Robot/base"])
        hinge = UsdPhysics.RevoluteJoint.Define(stage, f"{root}/Robot/joints/hinge")
        hinge.CreateBody0Rel().SetTargets([f"{root}/Robot/base"])
        hinge.CreateBody1Rel().SetTargets([f"{root}/Robot/arm"])
        hinge.CreateAxisAttr("Z")
        hinge.CreateLocalPos0Attr(Gf.Vec3f(0, 0, LENGTH))
        hinge.CreateLocalPos1Attr(Gf.Vec3f(0, 0, 0))
        cube = UsdGeom.Cube.Define(stage, f"{root}/Cube")
        cube.CreateSizeAttr(0.05)
        UsdPhysics.RigidBodyAPI.Apply(cube.GetPrim())
        UsdGeom.Camera.Define(stage, f"{root}/front")
        UsdGeom.Camera.Define(stage, f"{root}/Robot/arm/hand")
    UsdGeom.Camera.Define(stage, "/World/outside")
    return stage


def origin(env: int) -> tuple[float, float, float]:
    """Where clone `env` stands."""
    return (3.0 * env + 1.5, -2.0 * env, 0.0)


def pose(T: np.ndarray, version: int) -> np.ndarray:
    """(7,) float32 in the order of a version."""
    w, x, y, z = wxyz_from_rotation(T[:3, :3])
    q = (x, y, z, w) if version == 3 else (w, x, y, z)
    return np.array([*T[:3, 3], *q], np.float32)


class FakeCamera:
    """One camera of every clone, with the clock of sensor_base.py."""

    def __init__(self, env: FakeEnv, name: str, path: str, period: float) -> None:
        self.env, self.name = env, name
        types = ["rgb", "distance_to_image_plane", "instance_segmentation"]
        renderer = SimpleNamespace(renderer_type=env.kind)
        self.cfg = SimpleNamespace(
            prim_path=f"/World/envs/env_.*/{path}", data_types=types, update_period=period, renderer_cfg=renderer
        )
        self.image_shape = (SIZE[1], SIZE[0])
        self.follows = True
        self.only(*range(env.num_envs))

    def only(self, *clones: int, path: str = "") -> None:
        """Pictures of these clones alone; `path`: of a camera of the world."""
        self.rows, n = list(clones), len(clones)
        self.cfg.prim_path = path or self.cfg.prim_path
        self._timestamp, self._timestamp_last_update = np.zeros(n), np.zeros(n)
        self._is_outdated, self._frames = np.ones(n, bool), np.zeros(n, int)
        self._shown = np.full((n, 2), -1)
        self._drawn = np.full((n, 2), -1)
        self._poses = np.stack([self._pose(i) for i in clones])
        K = np.array([[20, 0, SIZE[0] / 2], [0, 20, SIZE[1] / 2], [0, 0, 1]], np.float32)
        self._K = np.tile(K, (n, 1, 1))

    @property
    def frame(self) -> Any:
        return self.env.wrapped(self._frames)

    def _pose(self, env: int) -> np.ndarray:
        T = np.eye(4)
        if self.name == "hand":
            T = self.env.arm(env)
        else:
            T[:3, 3] = origin(env)
        return pose(T, self.env.version)

    def draw(self) -> None:
        """The renderer's picture of the present states."""
        self._drawn = np.stack([self.env.count, self.env.episode], 1)[self.rows]

    def reset(self, ids: list[int]) -> None:
        for row, clone in enumerate(self.rows):
            if clone in ids:
                self._timestamp[row] = self._timestamp_last_update[row] = 0.0
                self._is_outdated[row], self._frames[row] = True, 0
                self._poses[row] = self._pose(clone)

    def update(self, dt: float) -> None:
        self._timestamp += dt
        self._is_outdated |= self._timestamp - self._timestamp_last_update + 1e-6 >= self.cfg.update_period

    @property
    def data(self) -> Any:
        due = self._is_outdated
        if due.any():
            if self.env.kind == "newton_warp":
                self.draw()
            self._shown[due] = self._drawn[due]
            self._frames[due] += 1
            if self.follows:
                for row in np.flatnonzero(due):
                    self._poses[row] = self._pose(self.rows[row])
            self._timestamp_last_update[due] = self._timestamp[due]
            self._is_outdated = np.zeros_like(due)
        n, (width, height) = len(self.rows), SIZE
        rgb = np.zeros((n, height, width, 3), np.uint8)
        rgb[..., 0] = (self._shown[:, 0] % 251)[:, None, None]
        rgb[..., 1] = (self._shown[:, 1] % 251)[:, None, None]
        rgb[..., 2] = np.array(self.rows)[:, None, None]
        depth = np.full((n, height, width, 1), 1.5, np.float32)
        depth[:, 0] = np.inf
        ids = np.full((n, height, width, 1), 2, np.int32)
        ids[:, 1:3], ids[:, 3] = 3, 1
        wrap = self.env.wrapped
        labels = [
            {0: "BACKGROUND", 1: "UNLABELLED", 2: f"/World/envs/env_{i}/Robot/arm", 3: f"/World/envs/env_{i}/Cube"}
            for i in self.rows
        ]
        shared = {0: "BACKGROUND", 1: "UNLABELLED"}
        for row, table in enumerate(labels):  # one table for all clones, as Newton's and tiled cameras have
            shared |= {2 + 10 * row: table[2], 3 + 10 * row: table[3]}
            ids[row][ids[row] > 1] += 10 * row
        output = {"rgb": wrap(rgb), "distance_to_image_plane": wrap(depth), "instance_segmentation": wrap(ids)}
        return SimpleNamespace(
            output=output, info={"instance_segmentation": {"idToLabels": shared}}, intrinsic_matrices=wrap(self._K),
            pos_w=wrap(self._poses[:, :3]), quat_w_ros=wrap(self._poses[:, 3:]),
        )  # fmt: skip


class FakeEnv:
    """A Direct environment: `step` resets what is told to end, as Isaac Lab's do, before it returns."""

    def __init__(
        self, num_envs: int = 2, *, version: int = 3, kind: str = "newton_warp", decimation: int = 2,
        render_interval: int = 2, period: float = 0.0, lengths: Any = None, cameras: tuple[str, ...] = ("front", "hand"),
    ) -> None:  # fmt: skip
        self.num_envs, self.version, self.kind = num_envs, version, kind
        self.unwrapped, self.render_enabled, self.closed = self, True, False
        self.step_dt = DT * decimation
        sim = SimpleNamespace(dt=DT, render_interval=render_interval)
        self.cfg = SimpleNamespace(decimation=decimation, sim=sim, num_rerenders_on_reset=0)
        self.sim = SimpleNamespace(stage=author(num_envs))
        self._sim_step_counter = 0
        self.count, self.episode = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.lengths = lengths or (lambda env, episode: 1 << 30)
        self.target = np.zeros(num_envs, np.float32)
        self.log: list[dict[str, Any]] = []
        """Every state that an environment was in at the end of a control step, as an oracle would note it."""
        robot = SimpleNamespace(
            cfg=SimpleNamespace(
                prim_path="/World/envs/env_.*/Robot", actuators={"all": SimpleNamespace(joint_names_expr=["hin.*"])}
            ), joint_names=["hinge"], body_names=["arm", "base"], data=_RobotData(self),
        )  # fmt: skip
        cube = SimpleNamespace(cfg=SimpleNamespace(prim_path="/World/envs/env_.*/Cube"), data=_CubeData(self))
        paths = {"front": "front", "hand": "Robot/arm/hand"}
        self.scene = SimpleNamespace(
            articulations={"robot": robot}, rigid_objects={"cube": cube}, rigid_object_collections={}, sensors={},
            env_origins=np.array([origin(i) for i in range(num_envs)], np.float32), num_envs=num_envs,
        )  # fmt: skip
        self.scene.sensors = {name: FakeCamera(self, name, paths[name], period) for name in cameras}
        self.scene.update = self._update

    def wrapped(self, value: np.ndarray) -> Any:
        """As the version holds its arrays."""
        return Proxy(value) if self.version == 3 else value

    def hinge(self, env: int) -> float:
        """Angle that says step, episode and clone, rad."""
        return 0.01 * float(self.count[env]) + 0.1 * float(self.episode[env] % 7) + 0.001 * env

    def arm(self, env: int) -> np.ndarray:
        """World pose of the arm."""
        T, a = np.eye(4), self.hinge(env)
        T[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
        T[:3, 3] = origin(env) + np.array([0, 0, LENGTH])
        return T

    def cube(self, env: int) -> np.ndarray:
        """World pose of the cube: x tells the step, y the episode."""
        T = np.eye(4)
        T[:3, 3] = origin(env) + np.array([0.001 * self.count[env], 0.01 * self.episode[env], 0.2])
        return T

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self._reset_idx(list(range(self.num_envs)))
        self.observe()
        return {}, {}

    def step(self, action: np.ndarray) -> Any:
        self.target[:] = action[:, 0]
        for _ in range(self.cfg.decimation):
            self._sim_step_counter += 1
            self.count += 1
            if self._sim_step_counter % self.cfg.sim.render_interval == 0 and self.kind != "newton_warp":
                for camera in self.scene.sensors.values():
                    camera.draw()
            self.scene.update(DT)
        steps = self.count // self.cfg.decimation
        ended = [i for i in range(self.num_envs) if steps[i] >= self.lengths(i, int(self.episode[i]))]
        flags = np.isin(np.arange(self.num_envs), ended)
        self.reset_terminated, self.reset_time_outs = flags, np.zeros_like(flags)
        if ended:
            self._reset_idx(ended)
        self.observe()
        return {}, np.zeros(self.num_envs), flags, np.zeros_like(flags), {}

    def _update(self, dt: float) -> None:
        for camera in self.scene.sensors.values():
            camera.update(dt)

    def observe(self) -> None:
        """A policy's observations read the cameras."""
        for camera in self.scene.sensors.values():
            _ = camera.data

    def _reset_idx(self, ids: list[int]) -> None:
        self.count[ids] = 0
        self.episode[ids] += 1
        self.target[ids] = 0.0
        for camera in self.scene.sensors.values():
            camera.reset(list(ids))
            for _ in range(self.cfg.num_rerenders_on_reset):
                camera.draw()

    def close(self) -> None:
        self.closed = True


class _RobotData:
    def __init__(self, env: FakeEnv) -> None:
        self._env = env

    def _rows(self, of: Any) -> Any:
        return self._env.wrapped(np.stack([of(i) for i in range(self._env.num_envs)]).astype(np.float32))

    @property
    def joint_pos(self) -> Any:
        return self._rows(lambda i: np.array([self._env.hinge(i)]))

    @property
    def joint_vel(self) -> Any:
        return self._rows(lambda i: np.array([1.0]))

    applied_torque = joint_vel

    @property
    def joint_pos_target(self) -> Any:
        return self._rows(lambda i: np.array([self._env.target[i]]))

    def _base(self, i: int) -> np.ndarray:
        T = np.eye(4)
        T[:3, 3] = origin(i)
        return pose(T, self._env.version)

    @property
    def body_link_pose_w(self) -> Any:
        return self._rows(lambda i: np.stack([pose(self._env.arm(i), self._env.version), self._base(i)]))

    @property
    def root_link_pose_w(self) -> Any:
        return self._rows(self._base)

    @property
    def root_vel_w(self) -> Any:
        return self._rows(lambda i: np.zeros(6))


class _CubeData:
    def __init__(self, env: FakeEnv) -> None:
        self._env = env

    @property
    def root_link_pose_w(self) -> Any:
        return self._env.wrapped(
            np.stack([pose(self._env.cube(i), self._env.version) for i in range(self._env.num_envs)])
        )

    @property
    def root_vel_w(self) -> Any:
        return self._env.wrapped(np.tile(np.arange(6, dtype=np.float32), (self._env.num_envs, 1)))


def shown_pose(camera: Any) -> np.ndarray:
    """T_env_camera of a recorded camera."""
    return inverse(camera)


def drive(
    env: FakeEnv, request: RecordRequest, steps: int, between: Callable[[int], None] | None = None
) -> LabRecorder:
    """The calls that RetakeWrapper makes, without gymnasium."""
    recorder = LabRecorder(env, request)
    inner = env._reset_idx
    state: dict[str, Any] = {"inside": False, "now": set()}

    def on_reset(ids: list[int]) -> None:
        recorder.before_reset(ids, stepped=not state["inside"])
        recorder.set_success(ids, [env.episode[i] % 2 == 1 for i in ids])
        if state["inside"]:
            state["now"] |= set(ids)
        inner(ids)
        recorder.after_reset(ids)

    env._reset_idx = on_reset  # type: ignore[method-assign]
    try:
        env.reset()
        for k in range(steps):
            action = np.array([[100.0 * env.episode[i] + env.count[i], i] for i in range(env.num_envs)], np.float32)
            recorder.before_step(action)
            state["inside"], state["now"] = True, set()
            env.step(action)
            state["inside"] = False
            recorder.after_step(skip=state["now"])
            if between is not None:
                between(k)
    finally:
        env._reset_idx = inner  # type: ignore[method-assign]
        recorder.close()
    return recorder


def mispaired(episode: Episode) -> int:
    """Frames whose picture shows another step, episode or clone than their state is of."""
    wrong = 0
    env = episode.header.settings["isaac_lab"]["env_id"]
    for k in range(len(episode)):
        count = round(episode.object_poses[k, 0, 0, 3] / 0.001)
        number = round(episode.object_poses[k, 0, 1, 3] / 0.01)
        angle = episode.joint("robot", "position")[k, 0]
        for camera in episode.header.cameras:
            pixel = episode.image(camera.name, "rgb", k)[0, 0]
            wrong += not np.array_equal(pixel, [count % 251, number % 251, env])
        wrong += abs(angle - (0.01 * count + 0.1 * (number % 7) + 0.001 * env)) > 1e-6
    return wrong


def newton(**more: Any) -> FakeEnv:
    return FakeEnv(2, lengths=lambda i, e: 6, **more)
