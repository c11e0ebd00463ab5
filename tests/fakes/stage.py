# SPDX-License-Identifier: Apache-2.0
"""A small stage in any unit and up-axis, and a motion on it: what the fake simulator simulates.

Poses and cameras are computed with pxr's own matrices (row vectors, stage units), independently of Retake's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

from retake.core.episode import Episode
from retake.usd.articulation import Articulation, read_articulations
from retake.usd.bodies import read_objects

LINKS = ("base", "upper", "hand", "left", "right")


def make_stage(
    *, robots: int = 1, metres_per_unit: float = 1.0, up_axis: str = "Z", wrist: bool = False, cameras: int = 1,
    offset: tuple[float, float] = (0.0, 0.0), path: str | None = None,
) -> Usd.Stage:  # fmt: skip
    """Robots with a gripper, a rigid packet, a table and cameras. All lengths are authored in stage units."""
    stage = Usd.Stage.CreateNew(path) if path else Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, metres_per_unit)
    UsdGeom.SetStageUpAxis(stage, up_axis)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    world = UsdGeom.Xform.Define(stage, "/World")
    stage.SetDefaultPrim(world.GetPrim())
    UsdPhysics.Scene.Define(stage, "/World/PhysicsScene")
    s = 1.0 / metres_per_unit
    for index in range(robots):
        _robot(stage, f"/World/Arm{index}", s, (0.0, 1.2 * index, 0.0))
    table = UsdGeom.Cube.Define(stage, "/World/Table")
    table.GetSizeAttr().Set(s * 0.5)
    UsdGeom.XformCommonAPI(table).SetTranslate(Gf.Vec3d(0.6 * s, 0, -0.3 * s))
    packet = UsdGeom.Cube.Define(stage, "/World/Packet")
    packet.GetSizeAttr().Set(0.1 * s)
    UsdPhysics.RigidBodyAPI.Apply(packet.GetPrim())
    UsdPhysics.CollisionAPI.Apply(packet.GetPrim())
    UsdGeom.XformCommonAPI(packet).SetTranslate(Gf.Vec3d(0.5 * s, 0.1 * s, 0.05 * s))
    for index in range(cameras):
        _camera(stage, f"/World/Camera{index}", s, offset, Gf.Vec3d(2.0 * s, (0.3 + 0.4 * index) * s, 1.1 * s))
    if wrist:
        _camera(stage, "/World/Arm0/hand/Wrist", s, offset, Gf.Vec3d(0.05 * s, 0, 0))
    return stage


def _robot(stage: Usd.Stage, path: str, s: float, where: tuple[float, float, float]) -> None:
    root = UsdGeom.Xform.Define(stage, path)
    UsdGeom.XformCommonAPI(root).SetTranslate(Gf.Vec3d(*where) * s)
    UsdPhysics.ArticulationRootAPI.Apply(root.GetPrim())
    places = {
        "base": (0, 0, 0),
        "upper": (0, 0, 0.3),
        "hand": (0.3, 0, 0.3),
        "left": (0.4, 0.02, 0.3),
        "right": (0.4, -0.02, 0.3),
    }
    for name, place in places.items():
        link = UsdGeom.Xform.Define(stage, f"{path}/{name}")
        UsdGeom.XformCommonAPI(link).SetTranslate(Gf.Vec3d(*place) * s)
        UsdPhysics.RigidBodyAPI.Apply(link.GetPrim())
        shape = UsdGeom.Cube.Define(stage, f"{path}/{name}/shape")
        shape.GetSizeAttr().Set(0.04 * s)
        UsdPhysics.CollisionAPI.Apply(shape.GetPrim())
    fixed = UsdPhysics.FixedJoint.Define(stage, f"{path}/joints/root")
    fixed.GetBody1Rel().SetTargets([f"{path}/base"])
    fixed.GetLocalPos0Attr().Set(Gf.Vec3f(*where) * s)
    for name, parent, child, kind, axis, low, high in (
        ("shoulder", "base", "upper", UsdPhysics.RevoluteJoint, "Y", -120, 120),
        ("elbow", "upper", "hand", UsdPhysics.RevoluteJoint, "X", -120, 120),
        ("finger_left", "hand", "left", UsdPhysics.PrismaticJoint, "Y", 0.0, 0.04 * s),
        ("finger_right", "hand", "right", UsdPhysics.PrismaticJoint, "Y", -0.04 * s, 0.0),
    ):
        joint = kind.Define(stage, f"{path}/joints/{name}")
        joint.GetBody0Rel().SetTargets([f"{path}/{parent}"])
        joint.GetBody1Rel().SetTargets([f"{path}/{child}"])
        joint.GetAxisAttr().Set(axis)
        joint.GetLowerLimitAttr().Set(float(low))
        joint.GetUpperLimitAttr().Set(float(high))
        delta = [a - b for a, b in zip(places[child], places[parent], strict=True)]
        joint.GetLocalPos0Attr().Set(Gf.Vec3f(*delta) * s)
        UsdPhysics.DriveAPI.Apply(joint.GetPrim(), "angular" if kind is UsdPhysics.RevoluteJoint else "linear")


def _camera(stage: Usd.Stage, path: str, s: float, offset: tuple[float, float], where: Gf.Vec3d) -> None:
    camera = UsdGeom.Camera.Define(stage, path)
    camera.GetFocalLengthAttr().Set(24.0)
    camera.GetHorizontalApertureAttr().Set(26.5)
    camera.GetVerticalApertureAttr().Set(15.0)  # wrong on purpose: Omniverse renders square pixels
    camera.GetHorizontalApertureOffsetAttr().Set(offset[0])
    camera.GetVerticalApertureOffsetAttr().Set(offset[1])
    camera.GetClippingRangeAttr().Set(Gf.Vec2f(0.01 * s, 100 * s))
    UsdGeom.XformCommonAPI(camera).SetTranslate(where)
    UsdGeom.XformCommonAPI(camera).SetRotate(Gf.Vec3f(0, 62, 90))


@dataclass
class Motion:
    """Raw states of a stage, one row per physics step, in the simulator's own form (float32, xyzw, stage units)."""

    stage: Usd.Stage
    robots: tuple[Articulation, ...]
    q: list[np.ndarray]
    """Per robot (S, D)."""
    dq: list[np.ndarray]
    effort: list[np.ndarray]
    target: list[np.ndarray]
    links: list[np.ndarray]
    """Per robot (S, L, 7)."""
    object_paths: tuple[str, ...]
    objects: np.ndarray
    """(S, M, 7)."""

    @property
    def steps(self) -> int:
        """Number of rows."""
        return len(self.q[0])


def random_motion(stage: Usd.Stage, steps: int, seed: int = 0) -> Motion:
    """A smooth random motion whose link poses follow the joints (forward kinematics) on any stage of `make_stage`."""
    rng = np.random.default_rng(seed)
    robots = read_articulations(stage)
    mpu = UsdGeom.GetStageMetersPerUnit(stage)
    y_up = UsdGeom.GetStageUpAxis(stage) == "Y"
    t = np.linspace(0, 3, steps)
    q_all, dq_all, effort, target, links = [], [], [], [], []
    for robot in robots:
        spec = robot.spec
        joints = [j for j in spec.joints if j.kind != "fixed"]
        low = np.array([max(j.lower, -1.5) for j in joints])
        high = np.array([min(j.upper, 1.5) for j in joints])
        phase = rng.uniform(0, 6, len(joints))
        q = low + (high - low) * (0.5 + 0.5 * np.sin(t[:, None] * rng.uniform(0.5, 2, len(joints)) + phase))
        T = spec.forward_kinematics(q, robot.T_world_link[spec.root])
        scale = np.array([1.0 if j.kind == "revolute" else 1.0 / mpu for j in joints])
        q_all.append((q * scale).astype(np.float32))
        dq_all.append(np.gradient(q * scale, axis=0).astype(np.float32))
        effort.append(rng.normal(size=q.shape).astype(np.float32))
        target.append((q * scale + rng.normal(scale=0.01, size=q.shape)).astype(np.float32))
        links.append(raw_poses(T, mpu, y_up))
    paths = ("/World/Packet",)
    p = np.stack([0.5 + 0.1 * np.sin(t), 0.1 * np.cos(t), 0.05 + 0.02 * t], -1)
    T = np.broadcast_to(np.eye(4), (steps, 1, 4, 4)).copy()
    T[:, 0, :3, 3] = p
    T[:, 0, :2, :2] = np.stack([np.stack([np.cos(t), -np.sin(t)], -1), np.stack([np.sin(t), np.cos(t)], -1)], -2)
    return Motion(stage, robots, q_all, dq_all, effort, target, links, paths, raw_poses(T, mpu, y_up))


def planned_motion(stage: Usd.Stage, trajectory: Any, dt_s: float = 1 / 60, steps: int = 0) -> Motion:
    """A stage's first robot on a planned joint trajectory (npz), its movable objects at rest; link poses by forward
    kinematics. For metres, Z up. Smooth in time, so an episode of it passes the episode check."""
    with np.load(trajectory, allow_pickle=False) as data:
        names, at, q = [str(n) for n in data["joint_names"]], data["time_s"], data["joint_position"]
    robot = read_articulations(stage)[0]
    order = [names.index(name) for name in robot.spec.dof_names]
    t = np.arange(steps or round(at[-1] / dt_s)) * dt_s
    position = np.stack([np.interp(t, at, column) for column in q.T[order]], -1)
    links = robot.spec.forward_kinematics(position, robot.T_world_link[robot.spec.root])
    objects = [o for o in read_objects(stage, (robot,)) if o.spec.movable]
    poses = np.broadcast_to(np.array([o.T_world_object for o in objects]), (len(t), len(objects), 4, 4))
    velocity = np.gradient(position, dt_s, axis=0)
    return Motion(
        stage, (robot,), [position.astype(np.float32)], [velocity.astype(np.float32)],
        [np.zeros_like(position, np.float32)], [position.astype(np.float32)], [raw_poses(links, 1.0, False)],
        tuple(o.spec.prim_path for o in objects), raw_poses(poses, 1.0, False),
    )  # fmt: skip


def replayed_motion(stage: Usd.Stage, episode: Episode, object_paths: tuple[str, ...]) -> Motion:
    """A recorded episode of the embedded simulator as raw states of a stage, one row per recorded frame."""
    robots = read_articulations(stage)
    mpu, y_up = UsdGeom.GetStageMetersPerUnit(stage), UsdGeom.GetStageUpAxis(stage) == "Y"
    names = [robot.spec.name for robot in robots]
    columns = [next(i for i, o in enumerate(episode.header.objects) if o.prim_path == path) for path in object_paths]

    def table(channel: str) -> list[np.ndarray[Any, Any]]:
        return [episode.joint(name, channel).astype(np.float32) for name in names]

    return Motion(
        stage,
        robots,
        table("position"),
        table("velocity"),
        table("effort"),
        table("target"),
        [raw_poses(episode.link_poses(name), mpu, y_up) for name in names],
        object_paths,
        raw_poses(episode.object_poses[:, columns], mpu, y_up),
    )


def raw_poses(T: np.ndarray, metres_per_unit: float, y_up: bool) -> np.ndarray:
    """T_world (…, 4, 4) in metres, Z up -> (…, 7) x y z qx qy qz qw in the stage's units and axes, through pxr."""
    R = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) if y_up else np.eye(3)
    flat = T.reshape(-1, 4, 4)
    out = np.zeros((len(flat), 7), np.float32)
    for row, pose in zip(out, flat, strict=True):
        matrix = Gf.Matrix3d(*(R @ pose[:3, :3]).T.reshape(-1).tolist())
        quaternion = matrix.ExtractRotation().GetQuat()
        row[:3] = R @ pose[:3, 3] / metres_per_unit
        row[3:6], row[6] = quaternion.GetImaginary(), quaternion.GetReal()
    return out.reshape(*T.shape[:-2], 7)


def camera_params(motion: Motion, prim_path: str, step: int, size: tuple[int, int]) -> dict[str, Any]:
    """What the camera_params annotator says of a camera at a step, from pxr's own transforms."""
    stage = motion.stage
    camera = UsdGeom.Camera(stage.GetPrimAtPath(prim_path))
    local_to_world = UsdGeom.XformCache().GetLocalToWorldTransform(camera.GetPrim())
    for robot, links in zip(motion.robots, motion.links, strict=True):
        for index, link in enumerate(robot.spec.links):
            if prim_path.startswith(link.prim_path + "/"):
                authored = UsdGeom.XformCache().GetLocalToWorldTransform(stage.GetPrimAtPath(link.prim_path))
                local_to_world = local_to_world * authored.GetInverse() * _matrix(links[step, index])
    width, height = size
    focal = camera.GetFocalLengthAttr().Get()
    aperture = camera.GetHorizontalApertureAttr().Get()
    dx, dy = camera.GetHorizontalApertureOffsetAttr().Get(), camera.GetVerticalApertureOffsetAttr().Get()
    effective = aperture * height / width
    P = np.zeros((4, 4))
    P[0, 0], P[1, 1], P[2, 0], P[2, 1] = (
        2 * focal / aperture,
        2 * focal / effective,
        2 * dx / aperture,
        2 * dy / effective,
    )
    P[2, 2], P[2, 3], P[3, 2] = 0.0, -1.0, 0.01
    return {
        "cameraModel": "pinhole",
        "cameraFocalLength": np.float32(focal),
        "cameraAperture": np.array([aperture, camera.GetVerticalApertureAttr().Get()], np.float32),
        "cameraApertureOffset": np.array([dx, dy], np.float32),
        "renderProductResolution": np.array(size, np.int32),
        "cameraViewTransform": np.array(local_to_world.GetInverse(), np.float64).reshape(16),
        "cameraProjection": P.reshape(16),
        "cameraNearFar": np.array([0.01, 100.0], np.float32),
        "metersPerSceneUnit": float(UsdGeom.GetStageMetersPerUnit(stage)),
    }


def _matrix(row: np.ndarray) -> Gf.Matrix4d:
    x, y, z, qx, qy, qz, qw = (float(v) for v in row)
    return Gf.Matrix4d().SetRotate(Gf.Quatd(qw, qx, qy, qz)) * Gf.Matrix4d().SetTranslate(Gf.Vec3d(x, y, z))


def session_is_clean(stage: Usd.Stage) -> bool:
    """Whether nothing is left in the session layer."""
    layer: Sdf.Layer = stage.GetSessionLayer()
    return not list(layer.subLayerPaths) and layer.empty
